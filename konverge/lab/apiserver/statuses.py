"""Every refusal of the API as one exception that carries the Status body, in the words Kubernetes uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from konverge.errors import FinalError

if TYPE_CHECKING:
    from konverge.lab.apiserver.kinds import ResourceKind

HINT = "reference/lab-apiserver.md#refusals"


@dataclass(frozen=True, slots=True)
class Cause:
    """One complaint about one field: ``reason`` is FieldValueRequired, FieldValueInvalid and so on."""

    reason: str
    message: str
    field: str

    def show(self) -> str:
        """Return the complaint as it stands in the message: ``spec.ports: Required value``."""
        return f"{self.field}: {self.message}"

    def encode(self) -> dict[str, str]:
        """Return the entry of ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class StatusError(FinalError):
    """A response that is not a success; ``status`` is the Status body, ``headers`` go along."""

    hint = HINT

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason or "Failed")
        self.code = code
        self.headers = dict(headers or {})
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
        }
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = dict(details)
        self.status["code"] = code


def describe_success(kind: ResourceKind, name: str, uid: str) -> dict[str, Any]:
    """Return the Status that answers a deletion."""
    details = {**_details(kind, name), "uid": uid}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(kind: ResourceKind, name: str = "") -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if kind.group:
        details["group"] = kind.group
    details["kind"] = kind.plural
    return details


def not_found(kind: ResourceKind, name: str) -> StatusError:
    """The named object does not exist."""
    return StatusError(404, "NotFound", f'{kind.qualified} "{name}" not found', _details(kind, name))


def no_such_resource() -> StatusError:
    """The path names a resource that is not served."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(kind: ResourceKind, name: str) -> StatusError:
    """An object of that name is there."""
    return StatusError(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', _details(kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(kind: ResourceKind, name: str, why: str = MODIFIED) -> StatusError:
    """The object changed since it was read, or a precondition does not hold."""
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name))


def apply_conflict(causes: Sequence[Cause]) -> StatusError:
    """Server-side apply meets fields that others own; the message lists them per owner."""
    owners: dict[str, list[str]] = {}
    for cause in causes:
        owners.setdefault(cause.message, []).append(cause.field)
    parts = []
    for owner, fields in owners.items():
        if len(causes) == 1:
            parts.append(f"{owner}: {fields[0]}")
        else:
            listed = "\n".join(f"- {field}" for field in fields)
            parts.append(f"{owner.replace('conflict with', 'conflicts with', 1)}:\n{listed}")
    plural = "s" if len(causes) > 1 else ""
    message = f"Apply failed with {len(causes)} conflict{plural}: " + "\n".join(parts)
    details = {"causes": [cause.encode() for cause in causes]}
    return StatusError(409, "Conflict", message, details)


def invalid(kind: ResourceKind, name: str, causes: Sequence[Cause]) -> StatusError:
    """The object is refused; one cause per field."""
    shown = [cause.show() for cause in causes]
    text = shown[0] if len(shown) == 1 else "[" + ", ".join(shown) + "]"
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    details = _details(kind, name) | {
        "kind": kind.kind,
        "causes": [cause.encode() for cause in causes],
    }
    return StatusError(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> StatusError:
    """The request cannot be understood."""
    return StatusError(400, "BadRequest", message)


def forbidden(kind: ResourceKind, name: str, why: str) -> StatusError:
    """The caller may not, or an admission rule says no."""
    subject = f'{kind.qualified} "{name}"' if name else kind.qualified
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", _details(kind, name))


def forbidden_path(user: str, verb: str, path: str) -> StatusError:
    """The caller may not read a path that is no resource."""
    message = f'forbidden: User "{user}" cannot {verb} path "{path}"'
    return StatusError(403, "Forbidden", message, {})


def unauthorized() -> StatusError:
    """The caller did not prove who it is."""
    return StatusError(401, "Unauthorized", "Unauthorized")


def uid_mismatch(kind: ResourceKind, name: str, given: str, have: str) -> StatusError:
    """A deletion names another object of the same name."""
    why = (
        f"the UID in the precondition ({given}) does not match the UID in record ({have}). "
        "The object might have been deleted and then recreated"
    )
    message = f'Operation cannot be fulfilled on {kind.kind} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name) | {"kind": kind.kind})


def method_not_allowed() -> StatusError:
    """The resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", message, {})


def unsupported_media(accepted: Sequence[str]) -> StatusError:
    """The body has a content type that is not understood here."""
    shown = ", ".join(accepted)
    message = f"the body of the request was in an unknown format - accepted media types include: {shown}"
    return StatusError(415, "UnsupportedMediaType", message)


def not_acceptable(accepted: Sequence[str]) -> StatusError:
    """No representation that the caller accepts is available."""
    message = f"406: Not Acceptable\n\nAvailable representations: {', '.join(accepted)}"
    return StatusError(406, "NotAcceptable", message, {})


def too_large(limit: int) -> StatusError:
    """The body is larger than ``limit`` bytes."""
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def expired(message: str = "The resourceVersion for the provided list is too old.") -> StatusError:
    """The history that was asked for is compacted away."""
    return StatusError(410, "Expired", message)


def too_old(asked: int, oldest: int) -> StatusError:
    """A watch asks for a version older than what is kept."""
    return expired(f"too old resource version: {asked} ({oldest})")


def version_too_large(asked: int, current: int) -> StatusError:
    """A list asks for a version that is still to come."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
        {"Retry-After": "1"},
    )


def too_many_requests(message: str, retry_after: int = 1, causes: Sequence[Cause] = ()) -> StatusError:
    """The server, or a disruption budget, asks to come back later."""
    details: dict[str, Any] = {}
    headers = {}
    if causes:
        details["causes"] = [{"reason": c.reason, "message": c.message} for c in causes]
    if retry_after:
        details["retryAfterSeconds"] = retry_after
        headers["Retry-After"] = str(retry_after)
    return StatusError(429, "TooManyRequests", message, details, headers)


def internal(message: str, code: int = 500) -> StatusError:
    """Something behind the API server failed."""
    details = {"causes": [{"message": message}]}
    return StatusError(code, "InternalError", f"Internal error occurred: {message}", details)


def required(field: str, detail: str = "") -> Cause:
    """A value is missing."""
    return Cause("FieldValueRequired", "Required value" + (f": {detail}" if detail else ""), field)


def wrong(field: str, value: Any, detail: str) -> Cause:
    """A value is not acceptable."""
    return Cause("FieldValueInvalid", f"Invalid value: {show_value(value)}: {detail}", field)


def unsupported(field: str, value: Any, allowed: Sequence[str]) -> Cause:
    """A value is none of the known words."""
    shown = ", ".join(f'"{word}"' for word in allowed)
    return Cause(
        "FieldValueNotSupported", f"Unsupported value: {show_value(value)}: supported values: {shown}", field
    )


def duplicate(field: str, value: Any) -> Cause:
    """A value occurs twice where it has to be unique."""
    return Cause("FieldValueDuplicate", f"Duplicate value: {show_value(value)}", field)


def too_long(field: str, detail: str) -> Cause:
    """A value is larger than allowed."""
    return Cause("FieldValueTooLong", f"Too long: {detail}", field)


def immutable(field: str, value: Any, detail: str = "field is immutable") -> Cause:
    """A value may not change."""
    return wrong(field, value, detail)


def denied(field: str, detail: str) -> Cause:
    """A value may not be set here."""
    return Cause("FieldValueForbidden", f"Forbidden: {detail}", field)


def show_value(value: Any) -> str:
    """Return a value as complaints quote it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if value is None:
        return "null"
    if isinstance(value, (int, float)):
        return str(value)

    return orjson.dumps(value).decode()
