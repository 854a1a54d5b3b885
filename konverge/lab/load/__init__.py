"""The load generator: a fixed schedule of requests and held sessions in which every failure is counted and dated."""

from konverge.lab.load.generator import LoadGenerator
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass, read_plan
from konverge.lab.load.process import LoadProcess
from konverge.lab.load.report import LoadReport, Snapshot

__all__ = [
    "LoadGenerator",
    "LoadPlan",
    "LoadProcess",
    "LoadReport",
    "Snapshot",
    "Target",
    "TrafficClass",
    "read_plan",
]
