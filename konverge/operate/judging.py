"""Reads the traffic counters of proxies before and after a push, for the verdict on a wave.

A proxy whose metrics cannot be read is left out: silence of a metrics endpoint speaks neither for nor against a
configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from konverge.decide.judging import Judgement, Sample, choose_baseline, judge_wave
from konverge.errors import KonvergeError
from konverge.model.counters import Counters
from konverge.model.fleet import Rollout
from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.operate.ports import Gateways

READERS = 8
"""Proxies whose metrics are read at the same time: each may be tens of megabytes of text."""

Reading = dict[str, Counters]
"""Counters by pod name."""


@dataclass(slots=True)
class Watcher:
    """Judges waves by metrics; does nothing where the fleet asks for no soak or no analysis."""

    gateways: Gateways
    rollout: Rollout
    _started: Reading = field(default_factory=dict)
    """Counters at the start of the sync: what passes until a proxy's turn is its baseline, where it is enough."""

    @property
    def active(self) -> bool:
        """Whether waves are judged by metrics at all."""
        return self.rollout.soak_seconds > 0 and self.rollout.analysis.enabled

    async def start(self, proxies: Sequence[Proxy]) -> None:
        """Note where the counters of all proxies stand before anything is pushed."""
        self._started = await self.read(proxies)

    async def read(self, proxies: Iterable[Proxy]) -> Reading:
        """Read the counters of proxies; those that cannot be read are missing."""
        if not self.active:
            return {}
        slots = asyncio.Semaphore(READERS)

        async def read_one(proxy: Proxy) -> tuple[str, Counters | None]:
            async with slots:
                try:
                    return proxy.name, await self.gateways.reach(proxy).counters()
                except KonvergeError:
                    return proxy.name, None

        found = await asyncio.gather(*(read_one(proxy) for proxy in proxies))
        return {name: counters for name, counters in found if counters is not None}

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
            Sample(name, choose_baseline(self._started.get(name), before[name], self.rollout.analysis), span)
            for name, span in (
                (name, counters.since(before[name])) for name, counters in after.items() if name in before
            )
        ]
        return judge_wave(samples, self.rollout.analysis)


async def soak(seconds: float) -> None:
    """Let traffic pass over a wave."""
    await asyncio.sleep(seconds)
