"""Reads the traffic counters of proxies before and after a push, for the verdict on a wave.

A proxy whose metrics cannot be read is left out: silence of a metrics endpoint speaks neither for nor against a
configuration. What a proxy did while it ran something that nobody judged good is no measure of anything: where a
roll-out was killed, the next one judges by the proxies that the configuration had not reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from konverge.decide.judging import Judgement, Sample, choose_baseline, judge_wave
from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.model.counters import Counters
from konverge.model.fleet import Fleet, Rollout
from konverge.model.proxy import ZERO_HASH, Proxy, ProxyOutcome
from konverge.model.revision import Revision, RevisionOutcome
from konverge.operate.ports import Gateway, Gateways
from konverge.operate.revisions import list_records, record_baseline

READERS = 8
"""Proxies whose metrics are read at the same time: each may be tens of megabytes of text."""

Reading = dict[str, Counters]
"""Counters by pod name."""
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Past:
    """What is known from before a roll-out."""

    trusted: frozenset[str] = frozenset()
    """Hashes of what was judged good; that of the revision itself only where it is in force already."""
    own: Counters | None = None
    """Traffic before the revision reached anybody, where a roll-out of it was begun."""
    last: Counters | None = None
    """The same of the newest revision that has one."""


async def recall_past(kube: KubeClient, fleet: Fleet, revision: Revision) -> Past:
    """Read what is known from before the roll-out of a revision."""
    records, status = await list_records(kube, fleet), fleet.status
    good = {record.spec.hash for record in records if record.status.outcome is RevisionOutcome.GOOD}
    in_force = revision.hash == status.last_good_hash or (
        revision.hash == status.current_hash and revision.hash in good
    )
    trusted = good | {status.last_good_hash} - {""}
    noted = {record.number: record.status.baseline for record in records if record.status.baseline is not None}
    return Past(
        frozenset(trusted if in_force else trusted - {revision.hash}),
        noted.get(revision.number),
        noted[max(noted)] if noted else None,
    )


@dataclass(slots=True)
class Watcher:
    """Judges waves by metrics; does nothing where the fleet asks for no soak or no analysis."""

    gateways: Gateways
    rollout: Rollout
    _started: Reading = field(default_factory=dict)
    """Counters at the start of the sync: what passes until a proxy's turn is its baseline, where it is enough."""
    _doubtful: frozenset[str] = frozenset()
    """Proxies that ran something at the start that was never judged good: their own past is no baseline."""
    _baseline: Counters = field(default_factory=Counters)
    """Theirs: the traffic of the others before the revision reached anybody."""

    @property
    def active(self) -> bool:
        """Whether waves are judged by metrics at all."""
        return self.rollout.soak_seconds > 0 and self.rollout.analysis.enabled

    async def start(self, kube: KubeClient, fleet: Fleet, revision: Revision, proxies: Sequence[Proxy]) -> None:
        """Note where the counters stand before anything is pushed, and write down what has to outlive a kill."""
        if not self.active:
            return
        past = await recall_past(kube, fleet, revision)
        self._started, loaded = await asyncio.gather(self.read(proxies), self._ask(proxies, read_hash))
        good = {name for name, digest in loaded.items() if digest in past.trusted}
        self._doubtful = frozenset(loaded) - good
        begun = revision.hash in {loaded[name] for name in self._doubtful}
        if (begun and past.own is not None) or not good:
            self._baseline = past.own or past.last or Counters()
            return
        self._baseline = sum((self._started[name] for name in good & self._started.keys()), start=Counters())
        if revision.hash not in past.trusted:
            await record_baseline(kube, fleet, revision.number, self._baseline)

    async def read(self, proxies: Iterable[Proxy]) -> Reading:
        """Read the counters of proxies; those that cannot be read are missing."""
        return await self._ask(proxies, lambda gateway: gateway.counters()) if self.active else {}

    async def _ask(
        self, proxies: Iterable[Proxy], question: Callable[[Gateway], Awaitable[Answer | None]]
    ) -> dict[str, Answer]:
        """Return the answers of proxies; those that have none are missing."""
        slots = asyncio.Semaphore(READERS)

        async def ask_one(proxy: Proxy) -> tuple[str, Answer | None]:
            async with slots:
                try:
                    return proxy.name, await question(self.gateways.reach(proxy))
                except KonvergeError:
                    return proxy.name, None

        found = await asyncio.gather(*(ask_one(proxy) for proxy in proxies))
        return {name: answer for name, answer in found if answer is not None}

    async def judge(
        self, proxies: Sequence[Proxy], outcomes: Sequence[ProxyOutcome], before: Reading
    ) -> Judgement | None:
        """Soak, read again and judge the proxies that took the push; None where waves are not judged."""
        await soak(self.rollout.soak_seconds)
        if not self.active:
            return None
        took = {outcome.proxy for outcome in outcomes if outcome.ok}
        after = await self.read(proxy for proxy in proxies if proxy.name in took)
        samples = [
            Sample(name, self._find_baseline(name, before[name]), span)
            for name, span in (
                (name, counters.since(before[name])) for name, counters in after.items() if name in before
            )
        ]
        return judge_wave(samples, self.rollout.analysis)

    def _find_baseline(self, name: str, before: Counters) -> Counters:
        if name in self._doubtful and self._baseline != Counters():
            return self._baseline
        return choose_baseline(self._started.get(name), before, self.rollout.analysis)


async def read_hash(gateway: Gateway) -> str | None:
    """Return what a proxy has loaded; None where that is nothing."""
    digest = await gateway.loaded_hash()
    return digest if digest not in ("", ZERO_HASH) else None


async def soak(seconds: float) -> None:
    """Let traffic pass over a wave."""
    await asyncio.sleep(seconds)
