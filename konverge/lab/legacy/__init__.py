"""The legacy topology for the lab: a release of per-pod controllers, its custom kinds and sample applications."""

from konverge.lab.legacy.crds import kong_crds
from konverge.lab.legacy.release import LegacySettings, full_name, legacy_release
from konverge.lab.legacy.sample import sample_applications, sample_load
from konverge.lab.legacy.storing import decode_release
from konverge.lab.legacy.templates import dump

__all__ = [
    "LegacySettings",
    "decode_release",
    "dump",
    "full_name",
    "kong_crds",
    "legacy_release",
    "sample_applications",
    "sample_load",
]
