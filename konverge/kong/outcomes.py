"""What became of one push: one frozen value per kind, none of which holds a byte of the configuration.

A push has eleven ends. Which of them is reached is decided by :mod:`konverge.kong.classifying` from the answer
alone, and by :mod:`konverge.kong.pushing` from what was (not) answered and what ``GET /status`` says afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from konverge.model.condition import ObjectRef


class SizeLimit(StrEnum):
    """Which limit of the proxy a configuration does not fit in."""

    BODY = "nginx_admin_client_max_body_size"
    """nginx refuses the body; Kong's default is 10m."""
    BODY_BUFFER = "nginx_admin_client_body_buffer_size"
    """The body went to a temporary file, which Kong does not read."""
    LMDB = "lmdb_map_size"
    """The store is full; the old configuration keeps serving."""


class IdentityCause(StrEnum):
    """Why the proxy did not accept our client certificate, diagnosed on our side.

    nginx gives the same page for all but the first two (see ``reference/kong-observed``).
    """

    NOT_SENT = "NotSent"
    NO_TLS = "NoTls"
    EXPIRED = "Expired"
    NOT_YET_VALID = "NotYetValid"
    WRONG_USAGE = "WrongUsage"
    UNKNOWN_AUTHORITY = "UnknownAuthority"
    UNDIAGNOSED = "Undiagnosed"


class UnreachableCause(StrEnum):
    """Why the proxy got nothing that it could have stored."""

    REFUSED = "ConnectionRefused"
    RESET = "ConnectionReset"
    CLOSED = "ConnectionClosed"
    TIMED_OUT = "TimedOut"
    NAME_UNKNOWN = "NameNotResolved"
    NO_ROUTE = "NoRouteToHost"
    SERVER_UNTRUSTED = "ServerUntrusted"
    SERVER_NAME = "ServerNameMismatch"
    SERVER_EXPIRED = "ServerCertificateExpired"
    TLS = "TlsFailed"
    MALFORMED = "MalformedAnswer"
    OTHER = "Other"


@dataclass(frozen=True, slots=True)
class FieldError:
    """One complaint about an entity; ``field`` is a dotted path, empty for the entity as a whole."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class EntityError:
    """The complaints about one entity, and the Kubernetes object that it comes from (None: unknown)."""

    entity_type: str
    name: str
    id: str
    errors: tuple[FieldError, ...]
    tags: tuple[str, ...] = ()
    object: ObjectRef | None = None


@dataclass(frozen=True, slots=True)
class DocumentError:
    """A complaint that Kong ties to a place in the document; ``objects`` are those that can have caused it."""

    path: str
    message: str
    objects: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """The configuration is stored. ``read_back``: learnt from the hash, because the answer did not say so.

    Stored is not routed: the workers rebuild their routers afterwards.
    """

    hash: str
    read_back: bool = False


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The proxy holds this very configuration already (304)."""

    hash: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Kong says that the configuration is wrong; nothing was stored.

    Both tuples empty means that Kong named no cause. ``truncated``: more was said than was read.
    """

    errors: tuple[EntityError, ...] = ()
    document_errors: tuple[DocumentError, ...] = ()
    truncated: bool = False

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The Kubernetes objects blamed, each once, in the order met."""
        named = [e.object for e in self.errors if e.object]
        named += [o for e in self.document_errors for o in e.objects]
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, slots=True)
class Busy:
    """Another load is under way; ``retry_after`` in seconds."""

    retry_after: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died while it loaded: its lock refuses every push for up to 60 s, so repeating is of no use till then.

    ``retry_after`` in seconds; ``message`` says what shows it. See :mod:`konverge.kong.loading`.
    """

    retry_after: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The configuration does not fit; ``limit`` is the setting that decides."""

    limit: SizeLimit


@dataclass(frozen=True, slots=True)
class IdentityRefused:
    """The proxy does not accept our client certificate. This says nothing about the configuration."""

    cause: IdentityCause
    message: str = ""


@dataclass(frozen=True, slots=True)
class Exiting:
    """The worker that answered is shutting down (503); ``observed`` is the hash read afterwards, if any."""

    observed: str | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The proxy cannot have stored the configuration, because it never had all of it."""

    cause: UnreachableCause
    message: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """The configuration may be stored, now or soon: read the hash before the next push.

    ``observed`` is the hash read right afterwards; None where that failed as well. ``status`` is the HTTP
    status, None where no answer came.
    """

    message: str
    status: int | None = None
    observed: str | None = None


@dataclass(frozen=True, slots=True)
class Unexpected:
    """An answer that a DB-less Kong does not give to a push: another program, a proxy between, or RBAC."""

    status: int
    message: str = ""


PushOutcome = (
    Stored
    | Unchanged
    | Refused
    | Busy
    | WorkerLost
    | TooLarge
    | IdentityRefused
    | Exiting
    | Unreachable
    | Unknown
    | Unexpected
)
