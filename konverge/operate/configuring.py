"""Brings one proxy to a revision: identify, compare, push, read back, probe the data path.

"Pushed" is not "loaded" and "loaded" is not "routing": the hash is read back, and the marker route is asked
for on fresh connections, because hash and readiness flip before the workers have rebuilt their routers.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from konverge.errors import KonvergeError, RetryableError
from konverge.kong.explaining import find_error
from konverge.kong.outcomes import PushOutcome, Refused
from konverge.model.condition import Outcome
from konverge.model.proxy import Blame, Mtls, Phase, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.ports import DataPath, Gateway

ATTEMPTS = 4
"""Pushes to one proxy in one run; after that it is quarantined and the next run tries again."""
LONGEST_WAIT = 5.0
"""Seconds between two pushes at most, whatever Retry-After says: the rest of the fleet must not wait."""
DEFAULT_WAIT = 1.0
"""Seconds before a repeat where the answer names no time."""
PROBES = 8
"""Fresh connections that must all answer with the marker; with two workers all meet one of them in under 1 %."""
PROBE_SECONDS = 15.0
"""How long the workers may take to rebuild their routers; observed: 0.6 s with 10,000 routes."""
PROBE_PAUSE = 0.1
HOPELESS = frozenset({"WorkerLost"})
"""Failures that pass by themselves, but not while a wave waits for them."""

HINT = "reference/proxy-reasons.md"


@dataclass(frozen=True, slots=True)
class Judged:
    """A push outcome as a triple; whether a repeat can help, after how many seconds; which objects are to blame."""

    ok: bool
    outcome: Outcome
    repeat_after: float | None = None
    retryable: bool = False
    blamed: tuple[Blame, ...] = ()


def judge_push(pushed: PushOutcome, proxy: str) -> Judged:
    """Turn what a push came to into reason, message and hint, and say whether a repeat can help."""
    error = find_error(pushed, proxy)
    if error is None:
        return _judged("Configured", "the configuration is stored", ok=True)
    outcome = Outcome(reason=error.reason, message=error.message, hint=error.hint)
    if not isinstance(error, RetryableError):
        return Judged(False, outcome, blamed=find_blame(pushed))
    delay = None if error.reason in HOPELESS else error.delay or DEFAULT_WAIT
    return Judged(False, outcome, delay, retryable=True)


def find_blame(pushed: PushOutcome) -> tuple[Blame, ...]:
    """Return the objects that a refusal names, each with the first complaint about it."""
    if not isinstance(pushed, Refused):
        return ()
    complaints: dict[str, Blame] = {}
    for error in pushed.errors:
        if error.object is not None:
            said = "; ".join(f"{e.field}: {e.message}" if e.field else e.message for e in error.errors)
            complaints.setdefault(str(error.object), Blame(object=error.object, message=said))
    for complaint in pushed.document_errors:
        for ref in complaint.objects:
            said = f"{complaint.path}: {complaint.message}".removeprefix(": ")
            complaints.setdefault(str(ref), Blame(object=ref, message=said))
    return tuple(complaints.values())


def _judged(reason: str, message: str, *, ok: bool = False) -> Judged:
    return Judged(ok, Outcome(reason=reason, message=message, hint=f"{HINT}#{slug(reason)}"))


def slug(reason: str) -> str:
    """Return the anchor of a reason: ``HashMismatch`` is ``hash-mismatch``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", reason).lower()


class Visit:
    """One proxy on its way to a revision, and what is known about it so far.

    ``may_act`` is asked before each push: one who must not act any more, a leader without a lease, sends nothing.
    ``turn`` is held from the first push to the last probe; a proxy that only has to be looked at needs none.
    """

    def __init__(
        self,
        gateway: Gateway,
        revision: Revision,
        may_act: Callable[[], bool] | None = None,
        turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> None:
        self.gateway = gateway
        self.revision = revision
        self._may_act = may_act
        self._turn = turn
        self._started = time.monotonic()
        self._waiting: float | None = None
        """Since when it waits for its turn."""
        self._waited = 0.0
        self._phase = Phase.DISCOVERED
        self._loaded = ""
        self._version = ""
        self._attempts = 0
        self._changed = False
        self._mtls: Mtls | None = None

    async def run(self) -> ProxyOutcome:
        """Go all the way and return what became of it; never raises for a proxy's failure."""
        try:
            return await self._run()
        except KonvergeError as error:
            outcome = Outcome(reason=error.reason, message=error.message, hint=error.hint)
            return self._finish(False, outcome, retryable=isinstance(error, RetryableError))

    @property
    def seconds(self) -> float:
        """How long it takes so far, the time that it waited for its turn left out."""
        now = time.monotonic()
        return now - self._started - self._waited - (now - self._waiting if self._waiting is not None else 0.0)

    def give_up(self) -> ProxyOutcome:
        """Return the outcome of a visit that was cancelled because it took too long; what it sent may be stored."""
        at = "while it was pushed to" if self._attempts else "before anything was sent"
        message = f"{self.gateway.proxy.name} was given up after {self.seconds:.0f} s, {at}"
        return self._finish(False, _judged("ProxySlow", message).outcome, retryable=True)

    async def _run(self) -> ProxyOutcome:
        self._mtls = await self.gateway.identify()
        self._phase = Phase.IDENTIFIED
        self._version = await self.gateway.version()
        self._loaded = await self.gateway.loaded_hash()
        if self._loaded == self.revision.hash:
            return await self._probe()
        self._waiting = time.monotonic()
        async with self._turn():
            self._waited, self._waiting = time.monotonic() - self._waiting, None
            judged = await self._push_until_stored()
            if not judged.ok:
                return self._finish(False, judged.outcome, retryable=judged.retryable, blamed=judged.blamed)
            return await self._probe()

    async def _probe(self) -> ProxyOutcome:
        """Ask the data path whether it routes by what is stored."""
        self._phase = Phase.CONFIGURED
        path = await probe_until_routing(self.gateway, self.revision.marker)
        if not path.ok:
            message = f"{path.passed} of {path.probes} fresh connections answered with the revision: {path.failure}"
            return self._finish(False, _judged("DataPathFailed", message).outcome)
        self._phase = Phase.SERVING
        return self._finish(True, _judged("Configured", "loaded, read back and probed").outcome)

    async def _push_until_stored(self) -> Judged:
        """Push and read back, with a bounded number of repeats; before each repeat the hash is read first."""
        judged = _judged("ProxyUnreachable", "nothing was sent")
        for attempt in range(ATTEMPTS):
            if self._may_act is not None and not self._may_act():
                stopped = _judged("NotLeading", "another controller acts for this fleet now; nothing was sent")
                return Judged(False, stopped.outcome, retryable=True)
            self._attempts = attempt + 1
            pushed = await self.gateway.push(self.revision.content)
            judged = judge_push(pushed, self.gateway.proxy.name)
            self._loaded = await self._read_hash()
            if self._loaded == self.revision.hash:
                self._changed = True
                return Judged(True, judged.outcome)
            if judged.ok:
                message = f"Kong said stored, but reports hash {self._loaded}, not {self.revision.hash}"
                judged = _judged("HashMismatch", message)
            if judged.repeat_after is None or attempt == ATTEMPTS - 1:
                return judged
            await asyncio.sleep(min(judged.repeat_after, LONGEST_WAIT) * random.uniform(0.5, 1.0))
        return judged

    async def _read_hash(self) -> str:
        try:
            return await self.gateway.loaded_hash()
        except KonvergeError:
            return ""

    def _finish(
        self, ok: bool, outcome: Outcome, *, retryable: bool = False, blamed: tuple[Blame, ...] = ()
    ) -> ProxyOutcome:
        return ProxyOutcome(
            proxy=self.gateway.proxy.name,
            ok=ok,
            outcome=outcome,
            phase=self._phase if ok else Phase.QUARANTINED,
            loaded_hash=self._loaded,
            version=self._version,
            attempts=max(1, self._attempts),
            milliseconds=round(self.seconds * 1000),
            changed=self._changed,
            retryable=retryable,
            mtls=self._mtls,
            blamed=blamed,
        )


async def configure_proxy(gateway: Gateway, revision: Revision) -> ProxyOutcome:
    """Bring one proxy to a revision and return what became of it; never raises for a proxy's failure."""
    return await Visit(gateway, revision).run()


async def probe_until_routing(gateway: Gateway, marker: str, seconds: float | None = None) -> DataPath:
    """Probe until every fresh connection answers with the marker; the last result when time is up."""
    deadline = time.monotonic() + (PROBE_SECONDS if seconds is None else seconds)
    while True:
        path = await gateway.probe(marker, PROBES)
        if path.ok or time.monotonic() >= deadline:
            return path
        await asyncio.sleep(PROBE_PAUSE)
