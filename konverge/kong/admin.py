"""The Admin API and the Status API of one proxy.

Errors: Unavailable (:class:`~konverge.kong.failures.LostConnection` where there is no answer), Forbidden with
reason IdentityRefused where the proxy does not accept our certificate, NotFound, Busy, Invalid. A push reports
all of these as an outcome instead.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import orjson

from konverge.errors import Busy, Forbidden, Invalid, KonvergeError, NotFound, Unavailable, UsageError
from konverge.kong import pushing
from konverge.kong.classifying import classify
from konverge.kong.exchanging import Peer
from konverge.kong.explaining import find_error
from konverge.kong.failures import LostConnection
from konverge.kong.identity import CertificateFacts, diagnose_identity, find_expiry
from konverge.kong.loading import LoadLock
from konverge.kong.outcomes import Busy as ProxyBusy
from konverge.kong.outcomes import IdentityCause, IdentityRefused, PushOutcome, UnreachableCause
from konverge.kong.reading import (
    GatewayInfo,
    GatewayStatus,
    Readiness,
    parse_info,
    parse_object,
    parse_readiness,
    parse_status,
)
from konverge.kong.transport import Answer, Channel

READ_TIMEOUT = 5.0
"""Seconds for one small read; under a load of 5,000 routes ``GET /status`` took 0.45 s at most."""
LONG_READ_TIMEOUT = 60.0
"""Seconds for metrics and pages of entities."""
KEPT_BODY = 256 * 1024 * 1024
"""Bytes of an answer that are read; the metrics of 10,000 routes with histograms are about 50 MB."""
PAGE_SIZE = 200
"""Entities asked for at once; Kong allows 1,000. Small pages keep the worker free for traffic."""
PAGE_PAUSE = 0.02
"""Seconds between two pages, for the same reason."""
HASH_INTERVAL = 0.1
"""Seconds between two looks at the hash; nothing announces it."""
_KIND = re.compile(r"[a-z][a-z0-9_-]*(/[^/?#\s]+/[a-z][a-z0-9_-]*)?")


def read_clock() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Meeting:
    """One answered call: what the proxy said, who it is (None without TLS), whether the connection was a kept one."""

    status: GatewayStatus
    peer: Peer | None
    reused: bool


class _Client:
    """What both APIs have in common; use as an async context manager."""

    def __init__(
        self,
        url: str,
        *,
        context: ssl.SSLContext | None = None,
        server_name: str = "",
        certificate: CertificateFacts | None = None,
        clock: Callable[[], datetime] = read_clock,
        tunnel: bool = False,
        lock: LoadLock | None = None,
    ) -> None:
        self._channel = Channel(url, context, server_name, tunnel=tunnel)
        self._certificate = certificate
        self._clock = clock
        self._lock = lock or LoadLock()

    @property
    def url(self) -> str:
        """The base URL."""
        return self._channel.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        await self._channel.close()

    async def retire(self) -> None:
        """Close as soon as nothing is under way."""
        await self._channel.retire()

    async def status(self, *, fresh: bool = False, timeout: float = READ_TIMEOUT) -> GatewayStatus:
        """Return the hash of the stored configuration and the connection counts."""
        return (await self._read_status(fresh, timeout))[0]

    async def meet(self, *, fresh: bool = False, timeout: float = READ_TIMEOUT) -> Meeting:
        """Make one call and return who answered it, and over what: proof that both sides accept each other.

        A kept connection was verified by a handshake when it was made; ``fresh`` makes one now.
        """
        status, answer = await self._read_status(fresh, timeout)
        return Meeting(status, answer.peer, answer.reused)

    async def _read_status(self, fresh: bool, timeout: float) -> tuple[GatewayStatus, Answer]:
        answer = await self._get("/status", timeout=timeout, fresh=fresh)
        status = parse_status(answer.body, f"GET {self.url}/status")
        self._lock.note_workers(status.worker_pids)
        return status, answer

    async def metrics(self, timeout: float = LONG_READ_TIMEOUT) -> str:
        """Return the Prometheus text; it is empty but for local gauges while the plugin is off."""
        answer = await self._get("/metrics", timeout=timeout, accept="text/plain")
        return answer.body.decode("utf-8", "replace")

    async def await_hash(self, expected: str, within: float) -> GatewayStatus | None:
        """Return the status as soon as its hash is the expected one, or None after ``within`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while True:
                    with suppress(Unavailable, Busy):
                        status = await self.status(fresh=True)
                        if status.hash == expected:
                            return status
                    await asyncio.sleep(HASH_INTERVAL)
        return None

    async def _get(
        self, path: str, *, timeout: float, fresh: bool = False, accept: str = "application/json"
    ) -> Answer:
        answer = await self._send("GET", path, timeout=timeout, fresh=fresh, accept=accept)
        if answer.status != 200:
            raise self._refusal(answer, f"GET {self.url}{path}")
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        timeout: float,
        fresh: bool = False,
        accept: str = "application/json",
        content: bytes | None = None,
    ) -> Answer:
        if expired := find_expiry(self._certificate, self._clock()):
            raise self._forbidden(expired)
        headers = {"Accept": accept}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = await self._carry(method, path, content, headers, timeout, fresh)
        except LostConnection as lost:
            if lost.alert is None:
                raise
            raise self._forbidden(IdentityRefused(lost.alert, lost.message)) from lost
        if not answer.complete:
            raise Unavailable(f"{method} {self.url}{path}: the answer broke off", reason="MalformedAnswer")
        return answer

    async def _carry(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str], timeout: float, fresh: bool
    ) -> Answer:
        """Send; a kept connection that a reload cut is replaced once, as all requests here may be repeated."""
        send = self._channel.send
        try:
            return await send(
                method, path, content=content, headers=headers, timeout=timeout, keep=KEPT_BODY, fresh=fresh
            )
        except LostConnection as lost:
            if not (lost.reused and lost.cause in (UnreachableCause.CLOSED, UnreachableCause.RESET)):
                raise
        return await send(method, path, content=content, headers=headers, timeout=timeout, keep=KEPT_BODY, fresh=True)

    def _refusal(self, answer: Answer, what: str) -> KonvergeError:
        outcome = classify(answer.status, answer.headers, answer.body) if answer.status == 400 else None
        if isinstance(outcome, IdentityRefused):
            return self._forbidden(outcome)
        text = f"{what}: {_message(answer)}"
        match answer.status:
            case 401 | 403:
                return Forbidden(text)
            case 404:
                return NotFound(text)
            case 429:
                return Busy(text)
        return Unavailable(text) if answer.status >= 500 else Invalid(text)

    def _forbidden(self, refused: IdentityRefused) -> KonvergeError:
        error = find_error(diagnose_identity(refused, self._certificate, self._clock()), self.url)
        assert error is not None
        return error


class AdminClient(_Client):
    """The Admin API of one proxy.

    ``context`` carries our certificate and the bundle that the proxy is verified with; ``server_name`` is the
    name its certificate must have, whatever address is dialled. ``certificate`` describes ours, for diagnosis.
    ``lock`` is what an earlier client of the same proxy learnt of its load lock.
    """

    async def push(self, content: bytes, timeout: float = pushing.PUSH_TIMEOUT) -> PushOutcome:
        """Post the configuration and return what became of it; see :mod:`konverge.kong.outcomes`."""
        if expired := find_expiry(self._certificate, self._clock()):
            return expired
        outcome = await pushing.push(self._channel, content, self._read_hash, timeout)
        if isinstance(outcome, ProxyBusy):
            with suppress(KonvergeError):
                await self.status()  # notes whether a worker is another process now
        outcome = self._lock.judge(outcome)
        if isinstance(outcome, IdentityRefused) and outcome.cause is IdentityCause.UNDIAGNOSED:
            return diagnose_identity(outcome, self._certificate, self._clock())
        return outcome

    async def _read_hash(self) -> str:
        return (await self.status(fresh=True)).hash

    async def info(self) -> GatewayInfo:
        """Return version, router flavor, database, listeners and node id."""
        answer = await self._get("/", timeout=READ_TIMEOUT)
        return parse_info(answer.body, f"GET {self.url}/")

    async def list_entities(
        self, kind: str, *, size: int = PAGE_SIZE, pause: float = PAGE_PAUSE
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the entities of a kind such as ``routes`` or ``upstreams/NAME/targets``, page by page.

        They hold credentials in clear: redact before they are shown. ``GET /config`` is no substitute: it
        blocks workers for seconds. Tags cannot be asked for: Kong answers 500 where an entity has none.
        """
        if not _KIND.fullmatch(kind):
            raise UsageError(f"{kind!r} is not a collection of the Admin API")
        query: dict[str, str] = {"size": str(size)}
        while True:
            path = f"/{quote(kind)}?{urlencode(query)}"
            answer = await self._get(path, timeout=LONG_READ_TIMEOUT)
            page = parse_object(answer.body, f"GET {self.url}/{kind}")
            for entity in page.get("data") or ():
                yield entity
            if not page.get("next") or not page.get("offset"):
                return
            query["offset"] = str(page["offset"])
            await asyncio.sleep(pause)


class StatusClient(_Client):
    """The Status API of one proxy; it asks for no client certificate."""

    async def ready(self, timeout: float = READ_TIMEOUT) -> Readiness:
        """Return whether Kong calls itself ready; true before the workers route by a new configuration."""
        answer = await self._send("GET", "/status/ready", timeout=timeout)
        if answer.status not in (200, 503):
            raise self._refusal(answer, f"GET {self.url}/status/ready")
        return parse_readiness(answer.status, answer.body, f"GET {self.url}/status/ready")

    async def drain(self) -> None:
        """Make the proxy unready while it goes on serving; only a reload or a restart ends that."""
        body = orjson.dumps({"status": "draining"})
        answer = await self._send("POST", "/status/ready", timeout=READ_TIMEOUT, content=body)
        if answer.status != 204:
            raise self._refusal(answer, f"POST {self.url}/status/ready")


def _message(answer: Answer) -> str:
    with suppress(orjson.JSONDecodeError, AttributeError):
        if message := orjson.loads(answer.body).get("message"):
            return str(message)[:200]
    return f"HTTP {answer.status}"
