"""What a load run has seen, as JSON: every request is counted once, in the phase of its intended start.

Invariant: ``total == ok + retried_on_stale_connection + closed_gracefully + failed`` in every block, and the
blocks of the classes, of the targets and of the phases each add up to the whole.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

BEHIND_MS = 100.0
"""Milliseconds of schedule lag from which the generator's own stall is named."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Counts(_Part):
    """Requests and sessions by how they ended."""

    total: int = 0
    ok: int = 0
    retried_on_stale_connection: int = 0
    closed_gracefully: int = 0
    failed: int = 0
    by_kind: dict[str, int] = {}
    """The failed ones by kind."""


class Latency(_Part):
    """Milliseconds from the intended start; of requests that were answered."""

    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p90_ms: float = 0.0
    p99_ms: float = 0.0
    p99_9_ms: float = 0.0
    max_ms: float = 0.0


class ClassReport(Latency, Counts):
    """One class of traffic."""

    kind: str = ""


class PhaseReport(Latency, Counts):
    """The requests that were to start within one phase."""

    started: float = 0.0
    """Seconds after the start of the run."""
    seconds: float = 0.0


class Requests(Counts):
    """All requests and sessions of the run."""

    by_class: dict[str, ClassReport] = {}
    by_target: dict[str, Counts] = {}


class Messages(Latency):
    """WebSocket messages: latency is that of a round trip."""

    sent: int = 0
    echoed: int = 0
    lost: int = 0
    """Sent and not echoed when the session ended, however it ended."""
    sessions: int = 0
    sessions_broken: int = 0
    """WebSocket sessions that were open and then failed; graceful ends are not among them."""


class Lines(_Part):
    """Lines of streams: a gap in their numbers fails the stream as ``wrong_body``."""

    received: int = 0
    sessions: int = 0
    sessions_cut: int = 0


class FailureSample(_Part):
    """One failure; ``offset`` and ``wall`` say when it was seen, ``intended`` when the request was to start."""

    offset: float
    intended: float
    wall: datetime
    class_name: str
    target: str
    phase: str
    kind: str
    detail: str


class Connections(_Part):
    """What the client did with connections."""

    opened: int = 0
    discarded_when_stale: int = 0
    """Kept connections that were found closed before a request was written to them: no request was harmed."""


class Schedule(_Part):
    """How well the generator kept its own schedule; a stall of the generator is no stall of the server."""

    planned_rate: float = 0.0
    achieved_rate: float = 0.0
    p99_lag_ms: float = 0.0
    max_lag_ms: float = 0.0
    fell_behind: bool = False
    note: str = ""


class Snapshot(_Part):
    """The counts while the run goes on."""

    phase: str
    seconds: float
    in_flight: int
    sessions_open: int
    rate: float
    """Finished requests per second since the snapshot before."""
    requests: Counts
    p99_ms: float
    max_lag_ms: float


class LoadReport(_Part):
    """The result of a run."""

    started: datetime
    seconds: float
    requests: Requests
    failures: list[FailureSample]
    phases: dict[str, PhaseReport]
    messages: Messages
    lines: Lines
    connections: Connections
    schedule: Schedule

    @property
    def clean(self) -> bool:
        """True where not one request or session failed."""
        return self.requests.failed == 0
