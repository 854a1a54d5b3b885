"""Brings a fleet with a database to one revision: the difference, entity by entity, through one Admin endpoint.

Everything new is written first; when every proxy answers with the marker of the revision, what is old goes. Until
then nothing that somebody may still route by is missing. What fails is taken back whole. The marker has another id
for every revision, so whoever answers with it has rebuilt router and plugins from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.errors import CheckRefused, KonvergeError, NotFound, RetryableError, Unavailable
from konverge.kong.database import (
    Applied,
    Caller,
    Failure,
    Journal,
    Plan,
    Reply,
    Undone,
    apply,
    mark_document,
    owner_tag,
    plan,
    read_passwords,
    undo,
    validate,
)
from konverge.kong.explaining import find_error
from konverge.kong.outcomes import Refused
from konverge.kube.client import KubeClient
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import Mtls, Phase, Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.configuring import HINT, PROBE_SECONDS, find_blame, probe_until_routing, slug
from konverge.operate.gathering import gather_all
from konverge.operate.ports import Gateway, Gateways
from konverge.operate.revisions import load_revision

DEFAULT_FREQUENCY = 5.0
"""Seconds; Kong's default for ``db_update_frequency`` and ``worker_state_update_frequency``."""


@dataclass(frozen=True, slots=True)
class DatabaseReport:
    """What became of a revision: the plan, what was done of it, and each proxy."""

    revision: Revision
    plan: Plan
    outcomes: tuple[ProxyOutcome, ...] = ()
    done: int = 0
    """Operations that were done and stayed."""
    failed: tuple[Failure, ...] = ()
    kept: tuple[Failure, ...] = ()
    """Deletions that Kong refused because something that is not Konverge's refers to the entity."""
    undone: Undone = field(default_factory=Undone)
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether the database holds the revision, and nothing that the revision does not have."""
        return not self.failed and any(outcome.ok for outcome in self.outcomes)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object without anything secret."""
        return {
            "revision": self.revision.number,
            **self.plan.to_json(),
            "dryRun": self.dry_run,
            "done": self.done,
            "failed": [failure.to_json() for failure in self.failed],
            "leftBecauseReferenced": [failure.to_json() for failure in self.kept],
            "undone": [operation.to_json() for operation in self.undone.undone],
            "notUndone": [failure.to_json() for failure in self.undone.lost],
            "proxies": [outcome.to_json() for outcome in self.outcomes],
        }


@dataclass(slots=True)
class _Visit:
    """A proxy that answers: who it is."""

    proxy: Proxy
    gateway: Gateway
    mtls: Mtls
    version: str
    started: float

    def conclude(self, outcome: Outcome, *, ok: bool = False, **more: Any) -> ProxyOutcome:
        """Return what became of the proxy."""
        phase = Phase.SERVING if ok else Phase.QUARANTINED
        spent = round((time.monotonic() - self.started) * 1000)
        return ProxyOutcome(
            proxy=self.proxy.name, ok=ok, outcome=outcome, phase=phase, version=self.version, mtls=self.mtls,
            milliseconds=spent, **more,
        )  # fmt: skip


class _AnyEndpoint:
    """The Admin API of one proxy; of the next one where that is lost. All of them write to the same database."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self._callers = list(callers)

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Return the answer of the first that gives one."""
        for _ in range(len(self._callers) - 1):
            try:
                return await self._callers[0].call(method, path, body)
            except Unavailable:
                self._callers.append(self._callers.pop(0))
        return await self._callers[0].call(method, path, body)


async def sync_database(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    *,
    clock: Clock = utc_now,  # noqa: ARG001 - the signature that all ways of syncing share
    dry_run: bool = False,
) -> DatabaseReport:
    """Bring the database of a fleet to a revision, and report what became of each proxy.

    A refusal or a proxy's failure is reported, not raised. CheckRefused where a proxy runs without a database, or
    nobody answers a dry run; Invalid where the revision has a kind of entity that no database gets.
    """
    visits, absent = await _meet_all(gateways, proxies)
    if not visits:
        if dry_run:
            raise _nobody(fleet, absent)
        return DatabaseReport(revision, Plan(), tuple(absent))
    caller = _AnyEndpoint([visit.gateway.database() for visit in visits])
    delay = await _read_delay(caller, visits[0].proxy)
    document = mark_document(orjson.loads(revision.content), revision.hash)
    found = await plan(caller, document, owner_tag(fleet.namespace, fleet.name))
    if dry_run:
        return DatabaseReport(revision, found, tuple(absent), dry_run=True)
    work = _Work(kube, fleet, revision, found, caller, visits, delay)
    return await work.run(tuple(absent))


async def plan_database(
    kube: KubeClient, fleet: Fleet, gateways: Gateways, revision: Revision, proxies: Sequence[Proxy]
) -> Plan:
    """Return the operations that a sync would do; nothing is changed. Raises as :func:`sync_database`."""
    return (await sync_database(kube, fleet, gateways, revision, proxies, dry_run=True)).plan


async def _meet_all(gateways: Gateways, proxies: Sequence[Proxy]) -> tuple[list[_Visit], list[ProxyOutcome]]:
    met = await gather_all(_meet(gateways.reach(proxy)) for proxy in proxies)
    visits = [one for one in met if isinstance(one, _Visit)]
    # The endpoint that is written through had better be one that stays.
    visits.sort(key=lambda visit: (visit.proxy.terminating, not visit.proxy.ready))
    return visits, [one for one in met if isinstance(one, ProxyOutcome)]


async def _meet(gateway: Gateway) -> _Visit | ProxyOutcome:
    started = time.monotonic()
    try:
        mtls = await gateway.identify()
        return _Visit(gateway.proxy, gateway, mtls, await gateway.version(), started)
    except KonvergeError as error:
        return ProxyOutcome(
            proxy=gateway.proxy.name,
            ok=False,
            outcome=Outcome(reason=error.reason, message=error.message, hint=error.hint),
            phase=Phase.QUARANTINED,
            milliseconds=round((time.monotonic() - started) * 1000),
            retryable=isinstance(error, RetryableError),
        )


async def _read_delay(caller: Caller, proxy: Proxy) -> float:
    """Return how many seconds later every worker of every proxy routes by what is written."""
    reply = await caller.call("GET", "/")
    settings = reply.body.get("configuration")
    settings = settings if isinstance(settings, Mapping) else {}
    if settings.get("database") in (None, "off"):
        raise CheckRefused(
            f"Proxy {proxy.name} runs without a database, but spec.mode of its fleet is db",
            reason="NoDatabase",
            hint=f"{HINT}#no-database",
        )
    names = ("db_update_frequency", "db_update_propagation", "worker_state_update_frequency")
    defaults = (DEFAULT_FREQUENCY, 0.0, DEFAULT_FREQUENCY)
    return sum(_number(settings.get(name), default) for name, default in zip(names, defaults, strict=True))


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default


def _nobody(fleet: Fleet, absent: Sequence[ProxyOutcome]) -> CheckRefused:
    why = absent[0].outcome.message if absent else "it has no proxies"
    return CheckRefused(
        f"No proxy of fleet {fleet.namespace}/{fleet.name} answers, so nobody tells what is in its database: {why}",
        reason="NoEndpoint",
        hint=f"{HINT}#no-endpoint",
    )


@dataclass(slots=True)
class _Work:
    """One revision on its way into a database."""

    kube: KubeClient
    fleet: Fleet
    revision: Revision
    plan: Plan
    caller: Caller
    visits: list[_Visit]
    delay: float
    journal: Journal = field(default_factory=Journal)

    async def run(self, absent: tuple[ProxyOutcome, ...]) -> DatabaseReport:
        """Write what is new, wait until it is routed, delete what is old; take everything back where that fails."""
        failed = await validate(self.caller, self.plan.prepare)
        applied = Applied(failed=failed) if failed else await apply(self.caller, self.plan.prepare, self.journal)
        if not applied.ok:
            return await self._give_up(absent, applied.failed, _explain(applied.failed, self.visits[0].proxy))
        outcomes = await gather_all(self._follow(visit) for visit in self.visits)
        if not any(outcome.ok for outcome in outcomes):
            return await self._give_up(absent, (), outcomes[0])
        removed = await apply(self.caller, self.plan.remove, self.journal)
        if not removed.ok:
            # Everybody routes by the revision: going back would be the harm. What is left goes with the next run.
            left = _explain(removed.failed, self.visits[0].proxy)
            outcomes = [_mark_unfinished(outcome, left) for outcome in outcomes]
        done = len(applied.done) + len(removed.done)
        kept = tuple(self.journal.kept)
        return DatabaseReport(self.revision, self.plan, (*outcomes, *absent), done, removed.failed, kept)

    async def _follow(self, visit: _Visit) -> ProxyOutcome:
        """Wait until a proxy routes by the revision."""
        changed = bool(self.plan.prepare)
        if changed and (not self.revision.marker or self.plan.stored_hash == self.revision.hash):
            # A global plugin answers in place of the marker, or the marker was there before what was mended: time is
            # all there is to go by.
            await asyncio.sleep(self.delay)
        try:
            path = await probe_until_routing(
                visit.gateway, self.revision.marker, 2 * self.delay + PROBE_SECONDS if changed else PROBE_SECONDS
            )
        except KonvergeError as error:
            outcome = Outcome(reason=error.reason, message=error.message, hint=error.hint)
            return visit.conclude(outcome, retryable=isinstance(error, RetryableError))
        if not path.ok:
            message = f"{path.passed} of {path.probes} fresh connections answered with the revision: {path.failure}"
            return visit.conclude(_judge("DataPathFailed", message), changed=changed)
        return visit.conclude(
            _judge("Configured", "the database holds it, and the proxy routes by it"),
            ok=True,
            loaded_hash=self.revision.hash,
            changed=changed,
        )

    async def _give_up(
        self, absent: tuple[ProxyOutcome, ...], failed: tuple[Failure, ...], why: ProxyOutcome
    ) -> DatabaseReport:
        """Take back what was done; every proxy is told why."""
        passwords = await self._read_passwords()
        undone = await undo(self.caller, self.journal, passwords)
        held = "" if undone.lost else self.plan.stored_hash
        outcome = _say_undone(why.outcome, undone)
        told: dict[str, Any] = {"loaded_hash": held, "blamed": why.blamed, "retryable": why.retryable}
        outcomes = [visit.conclude(outcome, **told) for visit in self.visits]
        return DatabaseReport(self.revision, self.plan, (*outcomes, *absent), 0, failed, undone=undone)

    async def _read_passwords(self) -> dict[str, str]:
        """Return the passwords of the last good revision: what is stored are hashes."""
        number = self.fleet.status.last_good_revision
        if not number or not self.journal.stages:
            return {}
        try:
            content = (await load_revision(self.kube, self.fleet, number)).content
        except (NotFound, KonvergeError):
            return {}
        return read_passwords(orjson.loads(content))


def _judge(reason: str, message: str) -> Outcome:
    return Outcome(reason=reason, message=message, hint=f"{HINT}#{slug(reason)}")


async def visit_database(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    *,
    note: Callable[[Proxy, ProxyOutcome], Awaitable[None]],
    clock: Clock = utc_now,
) -> list[ProxyOutcome]:
    """Bring a fleet with a database to a revision and tell of each proxy; ``proxies`` are all of the fleet.

    The counterpart of :func:`konverge.operate.visiting.visit_all`: one wave, since what is written is for everybody.
    """
    report = await sync_database(kube, fleet, gateways, revision, proxies, clock=clock)
    by_name = {proxy.name: proxy for proxy in proxies}
    await gather_all(note(by_name[outcome.proxy], outcome) for outcome in report.outcomes)
    return list(report.outcomes)


def _explain(failed: Sequence[Failure], proxy: Proxy) -> ProxyOutcome:
    """Return the failures as what a proxy would say of a whole configuration."""
    refused = Refused(tuple(error for failure in failed if failure.refusal for error in failure.refusal.errors))
    error = find_error(refused, proxy.name) if refused.errors else None
    first = failed[0]
    outcome = (
        Outcome(reason=error.reason, message=error.message, hint=error.hint)
        if error is not None
        else Outcome(reason=first.reason, message=first.message, hint=first.hint)
    )
    return ProxyOutcome(
        proxy=proxy.name,
        ok=False,
        outcome=outcome,
        retryable=error is None and first.retryable,
        blamed=find_blame(refused) if refused.errors else (),
    )


def _say_undone(outcome: Outcome, undone: Undone) -> Outcome:
    text = f"{outcome.message}; {len(undone.undone)} operations were taken back"
    if undone.lost:
        text += f", {len(undone.lost)} could not be: {undone.lost[0].message}"
    return outcome.model_copy(update={"message": text})


def _mark_unfinished(outcome: ProxyOutcome, left: ProxyOutcome) -> ProxyOutcome:
    if not outcome.ok:
        return outcome
    message = f"routes by the revision, but what is old is not all deleted: {left.outcome.message}"
    shown = left.outcome.model_copy(update={"reason": "DeletionsPending", "hint": f"{HINT}#deletions-pending"})
    return outcome.model_copy(update={"outcome": shown.model_copy(update={"message": message})})
