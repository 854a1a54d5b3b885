"""What the checks look at: the cluster, the orchestrator and the proxies as they were read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from konverge.decide.legacy import LegacyRelease
from konverge.errors import FinalError, KonvergeError
from konverge.kong.reading import GatewayInfo
from konverge.model.fleet import Fleet
from konverge.model.proxy import ProxyStatus
from konverge.model.revision import RevisionSpec
from konverge.model.rotation import CertificateView
from konverge.pki.handshake import Handshake

Object = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """A value that was read, or the failure that took its place."""

    value: T | None = None
    failure: KonvergeError | None = None

    def get(self) -> T:
        """Return the value; raises the failure of the reading."""
        if self.failure is not None:
            raise self.failure
        if self.value is None:
            raise FinalError("it was not read", reason="NotRead")
        return self.value


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The Kubernetes API server: its version, how long one answer took, and its clock against ours."""

    version: str
    seconds: float
    skew_seconds: float | None = None
    """Its clock minus ours; the Date header has a resolution of one second."""


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that an account may do; ``namespaced`` rights are asked for in the fleet's namespace only."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespaced: bool = True

    def __str__(self) -> str:
        name = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {name}.{self.group}" if self.group else f"{self.verb} {name}"


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """The Prefect server and what is set up on it."""

    url: str
    version: str
    skew_seconds: float | None
    pool: bool
    workers_online: int
    deployments: frozenset[str]
    """``flow/deployment`` names."""
    scheduled: frozenset[str]
    """Those with an active schedule."""
    automations: frozenset[str]


@dataclass(frozen=True, slots=True)
class GatewayView:
    """One proxy as it answered the controller's identity."""

    name: str
    shown: Handshake
    info: GatewayInfo | None = None
    skew_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """What the sources render to now."""

    size: int
    routes: int
    problems: tuple[str, ...]
    shadows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that was read. ``objects`` is by plural name: namespaced kinds of the fleet's namespace only."""

    now: datetime
    namespace: str
    fleet_name: str
    release_name: str = ""
    client_version: str = ""
    server: Reading[ApiServer] = field(default_factory=Reading)
    rights: Reading[Mapping[Right, bool]] = field(default_factory=Reading)
    kinds: Reading[frozenset[str]] = field(default_factory=Reading)
    """``plural.group/version`` of everything that the API server serves."""
    objects: Mapping[str, Reading[list[Object]]] = field(default_factory=dict)
    fleet: Reading[Fleet] | None = None
    """None where there is no such fleet."""
    instances: Reading[dict[str, ProxyStatus]] = field(default_factory=Reading)
    revisions: Reading[list[RevisionSpec]] = field(default_factory=Reading)
    certificates: Reading[list[CertificateView]] = field(default_factory=Reading)
    gateways: Reading[list[GatewayView]] = field(default_factory=Reading)
    rendering: Reading[Rendering] = field(default_factory=Reading)
    release: Reading[LegacyRelease] | None = None
    """None where no release was named."""
    orchestrator: Reading[Orchestrator] | None = None
    """None where no Prefect server is configured and none runs locally."""

    def list(self, plural: str) -> list[Object]:
        """Return the objects of a kind; raises the failure of their reading."""
        return self.objects.get(plural, Reading()).get()

    def find(self, plural: str, name: str) -> Object | None:
        """Return one object by name, or None where it does not exist."""
        return next((body for body in self.list(plural) if body["metadata"]["name"] == name), None)
