"""What the source objects ask for, before it is known which Kubernetes Services exist.

One source object (Ingress, HTTPRoute, ...) gives a :class:`Contribution`: parts of Kong services, and claims on
TLS secrets. Parts of the same Kong service may come from several objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from konverge.translate.problems import Object

Entity = dict[str, Any]
"""A Kong entity as it goes into the document."""

MISSING_PORT = -1
"""The port of a backendRef that names none: it resolves to nothing."""

SERVICE = "Service"
FACADE = "KongServiceFacade"

TIMEOUT = 60_000
"""Milliseconds to connect, read and write where nothing else is asked for."""
RETRIES = 5

SOURCES = (
    "Ingress",
    "TCPIngress",
    "UDPIngress",
    "HTTPRoute",
    "UDPRoute",
    "TCPRoute",
    "TLSRoute",
    "GRPCRoute",
)
"""The kinds that give Kong services; of equal names the service of the later kind stays."""


@dataclass(slots=True)
class Backend:
    """A reference to a Service or facade; ``port`` is a number, a name, or None for the only one."""

    namespace: str
    name: str
    port: int | str | None
    kind: str = SERVICE
    weight: int | None = None


@dataclass(slots=True)
class RouteDraft:
    """A Kong route in the making, and the object whose annotations apply to it."""

    kind: str
    source: Object
    entity: Entity
    plugins: list[Entity] = field(default_factory=list)
    """Nested plugins, from filters and rewrites."""
    references: list[str] = field(default_factory=list)
    """KongPlugins named by filters, in addition to the annotation of the source."""
    expressive: bool = False
    """The route has an expression instead of paths, hosts and the like."""
    tie: tuple[int, tuple[Any, ...]] | None = None
    """Upper priority bits and sort key, where the lower bits depend on all routes of the kind."""


@dataclass(slots=True)
class Part:
    """What one source object adds to the Kong service ``service``."""

    service: str
    host: str
    entity: Entity
    """Fields of the service; those of the first part count."""
    backends: list[Backend]
    kind: str
    source: Object
    """The source object."""
    routes: list[RouteDraft]
    parent: tuple[str, Object] | None = None
    """Whose tags a service with several backends gets, and who is told about missing backends."""
    plugins: list[Entity] = field(default_factory=list)
    default: bool = False
    """The part of an Ingress' default backend."""


@dataclass(slots=True)
class Claim:
    """Host names that shall be served with the certificate in a Secret."""

    namespace: str
    secret: str
    hosts: list[str]


@dataclass(slots=True)
class Contribution:
    """All that one source object asks for."""

    parts: list[Part] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    default: Part | None = None
    """The default backend of an Ingress; only the oldest of all is used."""


def new_service(name: str, host: str, protocol: str, port: int | None = None) -> Entity:
    """Return a Kong service with the usual timeouts."""
    entity: Entity = {
        "name": name,
        "host": host,
        "protocol": protocol,
        "connect_timeout": TIMEOUT,
        "read_timeout": TIMEOUT,
        "write_timeout": TIMEOUT,
        "retries": RETRIES,
    }
    if port is not None:
        entity["port"] = port
    return entity
