"""The Admin API as the legacy controller uses it: top-level JSON to POST /config, and GET /status for the hash.

Kong computes no foreseeable hash for that form: it differs for every proxy and every second, and ``check_hash``
has no effect. That is how the legacy topology works, and why it is not how Konverge pushes.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from konverge.errors import Unavailable
from konverge.lab.pod import PodEnvironment
from konverge.lab.sidecar.settings import SidecarSettings

ZEROS = "0" * 32
STATUS_TIMEOUT = 5.0
"""Seconds for a GET; the real controller's health check of a gateway uses the same."""
HINT = "reference/load.md#per-pod-controller"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a push came to: the status, and for a refusal the flattened errors and the message."""

    status: int
    message: str = ""
    errors: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def stored(self) -> bool:
        """True where Kong has taken the configuration."""
        return self.status in (200, 201)

    @property
    def refused(self) -> bool:
        """True where Kong says that the configuration itself is wrong."""
        return self.status == 400


class KongAdmin:
    """A client of the Admin API beside the controller; every method raises Unavailable where nobody answers."""

    def __init__(self, settings: SidecarSettings, pod: PodEnvironment) -> None:
        self.url = settings.admin_url
        self.requests = 0
        self._dialled = resolve_url(settings.admin_url, pod)
        self._timeout = settings.proxy_timeout
        self._tls = make_context(settings.skip_verify)
        self._session: aiohttp.ClientSession | None = None
        self._schemas: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls, limit=10))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def read_hash(self) -> str:
        """Return the configuration hash of GET /status; 32 zeros where nothing is loaded."""
        return str((await self._get("/status")).get("configuration_hash") or ZEROS)

    async def read_root(self) -> dict[str, Any]:
        """Return GET /: version and configuration of the gateway."""
        return await self._get("/")

    async def read_schemas(self, plugins: set[str]) -> Mapping[str, Any]:
        """Return the schemas of these plugins, each read once; a plugin that Kong does not know has none."""
        for name in sorted(plugins - self._schemas.keys()):
            self._schemas[name] = await self._get(f"/schemas/plugins/{name}", missing={})
        return {name: schema for name, schema in self._schemas.items() if schema}

    async def push(self, document: Mapping[str, Any]) -> Answer:
        """Send a configuration; a stored one's echo, as large as itself, is drained and dropped."""
        path = "/config?check_hash=1&flatten_errors=1"
        status, body = await self._request("POST", path, orjson.dumps(document), timeout=self._timeout)
        if status < 300:
            return Answer(status)
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            return Answer(status, f"HTTP {status}")
        errors = answer.get("flattened_errors")
        listed = tuple(item for item in errors if isinstance(item, dict)) if isinstance(errors, list) else ()
        return Answer(status, str(answer.get("message") or f"HTTP {status}"), listed)

    async def _get(self, path: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
        status, body = await self._request("GET", path, timeout=STATUS_TIMEOUT)
        if status == 404 and missing is not None:
            return missing
        if status != 200:
            raise Unavailable(f"GET {path} of {self.url} gave {status}", reason="KongAdminNotReady", hint=HINT)
        document: dict[str, Any] = orjson.loads(body)
        return document

    async def _request(
        self, method: str, path: str, body: bytes | None = None, *, timeout: float
    ) -> tuple[int, bytes]:
        assert self._session is not None
        self.requests += 1
        try:
            async with self._session.request(
                method,
                self._dialled + path,
                data=body,
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                if response.status in (200, 201) and method == "POST":
                    async for _ in response.content.iter_chunked(1 << 16):
                        pass
                    return response.status, b""
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = str(error) or type(error).__name__
            raise Unavailable(
                f"{method} {path.partition('?')[0]} of {self.url} failed: {cause}",
                reason="KongAdminUnreachable",
                hint=HINT,
            ) from error


def resolve_url(url: str, pod: PodEnvironment) -> str:
    """Return the URL to dial: "localhost" is the pod's own loopback."""
    parts = urlsplit(url)
    host = pod.resolve_target(parts.hostname or "localhost")
    netloc = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit(parts._replace(netloc=netloc)).rstrip("/")


def make_context(skip_verify: bool) -> ssl.SSLContext:
    """Return the TLS context; with ``skip_verify`` any certificate will do, as the chart has it."""
    context = ssl.create_default_context()
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
