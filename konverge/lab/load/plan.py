"""What a load run sends: targets, classes of traffic with their shares, and the limits of the client."""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from konverge.errors import UsageError

ClassKind = Literal["keepalive", "fresh", "body", "stream", "websocket"]
SESSION_KINDS = frozenset({"stream", "websocket"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Part):
    """One request that is sent again and again, and what counts as its right answer."""

    name: str = Field(min_length=1)
    path: str = Field(default="/", pattern=r"^/[^\s]*$")
    host: str = ""
    """Host header (and TLS server name); the base URL's own where empty."""
    method: str = Field(default="GET", pattern=r"^[A-Z]+$")
    headers: dict[str, str] = {}
    credentials: dict[str, SecretStr] = {}
    """Headers whose values are secret: they are sent, but never shown."""
    expect: list[int] = [200]
    contains: str = ""
    """Text that the body of an expected answer must contain."""
    weight: int = Field(default=1, ge=1, le=1000)

    @field_validator("headers")
    @classmethod
    def _refuse_line_breaks(cls, headers: dict[str, str]) -> dict[str, str]:
        if any("\r" in part or "\n" in part for pair in headers.items() for part in pair):
            raise ValueError("a header contains a line break")
        return headers


class TrafficClass(_Part):
    """Requests of one manner: keep-alive, fresh connections, bodies; or sessions: streams, WebSockets."""

    name: str = Field(min_length=1)
    kind: ClassKind
    targets: list[Target] = Field(min_length=1)
    share: float = Field(default=1.0, gt=0)
    """Part of the plan's rate, relative to the other classes'; without meaning for sessions."""
    connections: int = Field(default=16, ge=1, le=4096)
    """Connections that are kept and used in turn; more are opened while all are busy."""
    body_bytes: list[int] = Field(default=[1024], min_length=1)
    chunked_share: float = Field(default=0.5, ge=0, le=1)
    """Part of the bodies that is sent chunked instead of with Content-Length."""
    verify_echo: bool = True
    """Bodies only: the answer is JSON whose ``body_sha256`` must be that of the body sent."""
    sessions: int = Field(default=1, ge=0, le=4096)
    """Sessions only: how many are held open at once."""
    seconds: float = Field(default=10.0, gt=0, le=3600)
    """Sessions only: how long one lasts before the client's schedule ends it."""
    interval: float = Field(default=0.2, gt=0)
    """Sessions only: seconds between two messages or lines."""

    @property
    def holds_sessions(self) -> bool:
        """True for streams and WebSockets."""
        return self.kind in SESSION_KINDS


class LoadPlan(_Part):
    """A whole run: ``rate`` requests per second on a fixed schedule, beside the sessions that are held open."""

    base_url: str
    rate: float = Field(default=100.0, ge=0, le=100_000)
    classes: list[TrafficClass] = Field(min_length=1)
    phase: str = Field(default="before", min_length=1)
    """Name of the first phase."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds for one exchange, connecting included."""
    connect_timeout: float = Field(default=5.0, gt=0)
    max_in_flight: int = Field(default=4096, ge=1)
    samples: int = Field(default=200, ge=0)
    """Failures that are described one by one; all are counted."""
    verify_tls: bool = False
    """False accepts any certificate: a lab's proxies show self-signed ones."""
    ca_file: str = ""
    seed: int = 0
    """Seed of the bodies."""

    @field_validator("base_url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError where it is no port
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("base_url is not http://HOST[:PORT] or https://HOST[:PORT]")
        if parts.path not in ("", "/") or parts.query or parts.username:
            raise ValueError("base_url has more than scheme, host and port; paths belong to targets")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        names = [item.name for item in self.classes]
        if len(set(names)) != len(names):
            raise ValueError("two classes have the same name")
        if self.rate and all(item.holds_sessions for item in self.classes):
            raise ValueError("there is a rate but no class of requests to send at it; set rate to 0")
        return self

    def to_bytes(self) -> bytes:
        """Return the plan as JSON, secrets in clear: for a file that only the owner reads."""
        return orjson.dumps(self.model_dump(mode="python"), default=_reveal)


def read_plan(content: bytes, source: str = "the plan") -> LoadPlan:
    """Read a plan from JSON; UsageError names the field that is off."""
    try:
        return LoadPlan.model_validate(orjson.loads(content))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{source} is no JSON: {error}", hint="reference/load.md#plan") from error
    except ValidationError as error:
        raise UsageError(f"{source}: {describe_errors(error)}", hint="reference/load.md#plan") from error


def describe_errors(error: ValidationError) -> str:
    """Return fields and messages of a validation error, without the values that were given."""
    parts = (
        f"{'.'.join(str(item) for item in entry['loc']) or 'plan'}: {entry['msg']}"
        for entry in error.errors(include_url=False, include_input=False, include_context=False)
    )
    return "; ".join(parts)


def _reveal(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    raise TypeError(f"{type(value).__name__} has no JSON form")
