"""What a request asks for: verb, resource, name and options, read from method, path and query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from konverge.lab.apiserver.kinds import Registry, ResourceKind
from konverge.lab.apiserver.statuses import StatusError, bad_request

VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
DEFAULT_MANAGER = "unknown"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: name, groups, uid and extra attributes."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


@dataclass(slots=True)
class Request:
    """One API request; ``kind`` is None for paths that are no resource."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    verb: str = ""
    group: str = ""
    version: str = ""
    plural: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    kind: ResourceKind | None = None
    body: bytes = b""
    user: User = ANONYMOUS
    repeated: Mapping[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def is_resource(self) -> bool:
        """Whether the path is that of a resource, served or not."""
        return bool(self.plural)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be stored; 400 for an unknown value."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise bad_request(f'Invalid value: "{value}": supported values: "All"')
        return value == "All"

    @property
    def manager(self) -> str:
        """The field manager: the parameter, else the user agent up to its first slash."""
        agent = self.headers.get("User-Agent", "")
        return self.query.get("fieldManager") or agent.split("/")[0][:128] or DEFAULT_MANAGER

    @property
    def validation(self) -> str:
        """What happens to unknown fields: Strict, Warn or Ignore."""
        value = self.query.get("fieldValidation") or "Warn"
        if value not in ("Strict", "Warn", "Ignore"):
            raise bad_request(
                f'fieldValidation: Unsupported value: "{value}": supported values: "Ignore", "Strict", "Warn"'
            )
        return value

    def flag(self, name: str) -> bool:
        """Whether a boolean parameter is set."""
        return self.query.get(name, "").lower() in ("1", "true")

    def need_kind(self) -> ResourceKind:
        """Return the resource; only called where it is known to be one."""
        assert self.kind is not None
        return self.kind


def parse_request(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], registry: Registry
) -> Request:
    """Read a request line as the API server does."""
    request = Request(method, path, query, headers, verb=method.lower())
    parts = [part for part in path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        request.version, parts = parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        request.group, request.version, parts = parts[1], parts[2], parts[3:]
    else:
        return request
    watched = parts[0] == "watch"
    _parse_resource(request, parts[1:] if watched else parts)
    request.kind = registry.find(request.group, request.version, request.plural)
    request.verb = _find_verb(request, watched)
    return request


def _parse_resource(request: Request, parts: list[str]) -> None:
    if parts and parts[0] == "namespaces" and len(parts) > 1:
        request.namespace = parts[1]
        if len(parts) > 2 and parts[2] not in ("status", "finalize"):
            parts = parts[2:]
    request.plural = parts[0] if parts else ""
    if request.plural == "namespaces":
        request.namespace = ""
    request.name = parts[1] if len(parts) > 1 else ""
    request.subresource = parts[2] if len(parts) > 2 else ""
    request.rest = "/".join(parts[3:])


def _find_verb(request: Request, watched: bool) -> str:
    verb = VERBS.get(request.method, request.method.lower())
    if verb == "get" and not request.name:
        return "watch" if watched or request.flag("watch") else "list"
    if verb == "get" and (watched or (request.flag("watch") and not request.subresource)):
        return "watch"
    return "deletecollection" if verb == "delete" and not request.name else verb


def parse_version(request: Request) -> int | None:
    """Return the resourceVersion parameter, None where it is unset; 400 where it is no number."""
    text = request.query.get("resourceVersion", "")
    if not text:
        return None
    if not text.isdigit():
        raise _invalid_version(text)
    return int(text)


def _invalid_version(text: str) -> StatusError:
    return bad_request(
        f'invalid resource version: resourceVersion: Invalid value: "{text}": '
        f'strconv.ParseUint: parsing "{text}": invalid syntax'
    )
