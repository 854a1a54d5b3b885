"""What the parts of the server share: settings, clock, store, kinds and the numbers handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from konverge.lab.apiserver.clock import Clock
from konverge.lab.apiserver.faults import Faults
from konverge.lab.apiserver.kinds import Registry
from konverge.lab.apiserver.metrics import Metrics
from konverge.lab.apiserver.store import Store

if TYPE_CHECKING:
    from konverge.lab.apiserver.allocating import Allocator
    from konverge.lab.apiserver.tokens import TokenIssuer

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body; the real server's default limit."""
LOOPBACK = IPv4Network("127.0.0.0/8")
SERVICE_CIDR = IPv4Network("10.96.0.0/16")
VERSION = "v1.36.2"
"""The release whose types and behaviour are served."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs. ``directory`` holds certificates, tokens and the store; nothing else is written.

    ``listen`` is host:port, port 0 picks a free one. ``history`` is the number of events kept per resource,
    ``bookmark_period`` the seconds between bookmarks of a quiet watch.
    """

    directory: Path
    listen: str = "127.0.0.1:0"
    service_cidr: IPv4Network = SERVICE_CIDR
    rbac: bool = True
    allow_loopback_endpoints: bool = False
    loopback_range: IPv4Network = LOOPBACK
    """The part of 127.0.0.0/8 that ``allow_loopback_endpoints`` opens: the lab's own pods, nothing else."""
    tokens_file: Path | None = None
    audit_file: Path | None = None
    history: int = 4096
    bookmark_period: float = 10.0
    persist: bool = True
    advertise: tuple[str, ...] = ()
    """Further host names and addresses that the serving certificate is valid for."""


@dataclass(slots=True)
class State:
    """Everything that requests work on."""

    settings: Settings
    store: Store
    registry: Registry = field(default_factory=Registry)
    clock: Clock = field(default_factory=Clock)
    faults: Faults = field(default_factory=Faults)
    metrics: Metrics = field(default_factory=Metrics)
    allocator: Allocator = None  # type: ignore[assignment]  # set while starting
    issuer: TokenIssuer = None  # type: ignore[assignment]  # set while starting
    tasks: Any = None
    snapshots: Any = None
    listener: Any = None
