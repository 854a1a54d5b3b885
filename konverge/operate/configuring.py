"""Brings one proxy to a revision: identify, compare, push, read back, probe the data path.

"Pushed" is not "loaded" and "loaded" is not "routing": the hash is read back, and the marker route is asked
for on fresh connections, because hash and readiness flip before the workers have rebuilt their routers.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from dataclasses import dataclass

from konverge.errors import KonvergeError, RetryableError
from konverge.kong.explaining import find_error
from konverge.kong.outcomes import PushOutcome
from konverge.model.condition import Outcome
from konverge.model.proxy import Mtls, Phase, ProxyOutcome
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

HINT = "reference/proxy-reasons.md"


@dataclass(frozen=True, slots=True)
class Judged:
    """A push outcome as a triple, and whether a repeat can help, after how many seconds."""

    ok: bool
    outcome: Outcome
    repeat_after: float | None = None


def judge_push(pushed: PushOutcome, proxy: str) -> Judged:
    """Turn what a push came to into reason, message and hint, and say whether a repeat can help."""
    error = find_error(pushed, proxy)
    if error is None:
        return _judged("Configured", "the configuration is stored", ok=True)
    delay = (error.delay or DEFAULT_WAIT) if isinstance(error, RetryableError) else None
    return Judged(False, Outcome(reason=error.reason, message=error.message, hint=error.hint), delay)


def _judged(reason: str, message: str, *, ok: bool = False) -> Judged:
    return Judged(ok, Outcome(reason=reason, message=message, hint=f"{HINT}#{slug(reason)}"))


def slug(reason: str) -> str:
    """Return the anchor of a reason: ``HashMismatch`` is ``hash-mismatch``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", reason).lower()


@dataclass(slots=True)
class _Visit:
    """What is known about a proxy while it is being configured."""

    gateway: Gateway
    revision: Revision
    started: float
    phase: Phase = Phase.DISCOVERED
    loaded: str = ""
    version: str = ""
    attempts: int = 0
    changed: bool = False
    mtls: Mtls | None = None

    def finish(self, ok: bool, outcome: Outcome, *, retryable: bool = False) -> ProxyOutcome:
        return ProxyOutcome(
            proxy=self.gateway.proxy.name,
            ok=ok,
            outcome=outcome,
            phase=self.phase if ok else Phase.QUARANTINED,
            loaded_hash=self.loaded,
            version=self.version,
            attempts=max(1, self.attempts),
            milliseconds=round((time.monotonic() - self.started) * 1000),
            changed=self.changed,
            retryable=retryable,
            mtls=self.mtls,
        )


async def configure_proxy(gateway: Gateway, revision: Revision) -> ProxyOutcome:
    """Bring one proxy to a revision and return what became of it; never raises for a proxy's failure."""
    visit = _Visit(gateway, revision, time.monotonic())
    try:
        return await _visit(visit)
    except KonvergeError as error:
        outcome = Outcome(reason=error.reason, message=error.message, hint=error.hint)
        return visit.finish(False, outcome, retryable=isinstance(error, RetryableError))


async def _visit(visit: _Visit) -> ProxyOutcome:
    visit.mtls = await visit.gateway.identify()
    visit.phase = Phase.IDENTIFIED
    visit.version = await visit.gateway.version()
    visit.loaded = await visit.gateway.loaded_hash()
    if visit.loaded != visit.revision.hash:
        judged = await _push_until_stored(visit)
        if not judged.ok:
            return visit.finish(False, judged.outcome, retryable=judged.repeat_after is not None)
    visit.phase = Phase.CONFIGURED
    path = await probe_until_routing(visit.gateway, visit.revision.marker)
    if not path.ok:
        message = f"{path.passed} of {path.probes} fresh connections answered with the revision: {path.failure}"
        return visit.finish(False, _judged("DataPathFailed", message).outcome)
    visit.phase = Phase.SERVING
    return visit.finish(True, _judged("Configured", "loaded, read back and probed").outcome)


async def _push_until_stored(visit: _Visit) -> Judged:
    """Push and read back, with a bounded number of repeats; before each repeat the hash is read first."""
    judged = _judged("ProxyUnreachable", "nothing was sent")
    for attempt in range(ATTEMPTS):
        visit.attempts = attempt + 1
        judged = judge_push(await visit.gateway.push(visit.revision.content), visit.gateway.proxy.name)
        visit.loaded = await _read_hash(visit)
        if visit.loaded == visit.revision.hash:
            visit.changed = True
            return Judged(True, judged.outcome)
        if judged.ok:
            message = f"Kong said stored, but reports hash {visit.loaded}, not {visit.revision.hash}"
            judged = _judged("HashMismatch", message)
        if judged.repeat_after is None or attempt == ATTEMPTS - 1:
            return judged
        await asyncio.sleep(min(judged.repeat_after, LONGEST_WAIT) * random.uniform(0.5, 1.0))
    return judged


async def _read_hash(visit: _Visit) -> str:
    try:
        return await visit.gateway.loaded_hash()
    except KonvergeError:
        return ""


async def probe_until_routing(gateway: Gateway, marker: str, seconds: float | None = None) -> DataPath:
    """Probe until every fresh connection answers with the marker; the last result when time is up."""
    deadline = time.monotonic() + (PROBE_SECONDS if seconds is None else seconds)
    while True:
        path = await gateway.probe(marker, PROBES)
        if path.ok or time.monotonic() >= deadline:
            return path
        await asyncio.sleep(PROBE_PAUSE)
