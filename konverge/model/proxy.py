"""ProxyInstance: one proxy pod, what it should run and what it runs."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from konverge.model.base import Value
from konverge.model.condition import Condition, ObjectRef, Outcome

ADMIN_PORT = 8444
STATUS_PORT = 8100
PROXY_PORT = 8000
CONFIGURED_GATE = "konverge.dev/configured"
"""Pod readiness gate: True only while the desired configuration is loaded and the data path answers."""

ZERO_HASH = "0" * 32
"""What Kong reports while it has no configuration."""


class Proxy(Value):
    """A proxy as discovered: where it is dialled and the name its certificate must carry."""

    name: str
    namespace: str
    ip: str
    uid: str = ""
    node: str = ""
    server_name: str = ""
    ready: bool = False
    terminating: bool = False
    admin_port: int = ADMIN_PORT
    status_port: int = STATUS_PORT
    proxy_port: int = PROXY_PORT


class Phase(StrEnum):
    """Where a proxy stands on its way into traffic."""

    DISCOVERED = "Discovered"
    IDENTIFIED = "Identified"
    CONFIGURED = "Configured"
    SERVING = "Serving"
    QUARANTINED = "Quarantined"


class Mtls(Value):
    """The identity that a proxy showed at the last handshake."""

    subject: str = ""
    issuer: str = ""
    serial: str = ""
    starts: datetime | None = None
    expires: datetime | None = None
    protocol: str = ""
    verified_at: datetime | None = None
    trusted_authorities: tuple[str, ...] = ()


class ProxyStatus(Value):
    """The status of a ProxyInstance."""

    pod: str = ""
    node: str = ""
    ip: str = ""
    version: str = ""
    phase: Phase = Phase.DISCOVERED
    desired_revision: int = 0
    desired_hash: str = ""
    loaded_revision: int | None = None
    loaded_hash: str = ""
    synced: bool = False
    traffic_ready: bool = False
    last_push: datetime | None = None
    push_milliseconds: int | None = None
    attempts: int = 0
    reason: str = ""
    message: str = ""
    hint: str = ""
    mtls: Mtls = Mtls()
    conditions: tuple[Condition, ...] = ()


class Blame(Value):
    """A Kubernetes object that a proxy names as the cause of its refusal, and what it says about it."""

    object: ObjectRef
    message: str = ""


class ProxyOutcome(Value):
    """What one verb did to one proxy; the row of a wave's table."""

    proxy: str
    ok: bool
    outcome: Outcome
    phase: Phase = Phase.DISCOVERED
    loaded_hash: str = ""
    version: str = ""
    attempts: int = 1
    milliseconds: int = 0
    changed: bool = False
    retryable: bool = False
    """Whether the same call may work later: the proxy was out of reach, busy or about to exit."""
    mtls: Mtls | None = None
    blamed: tuple[Blame, ...] = ()
    """The objects behind a refusal, where Kong named them."""
