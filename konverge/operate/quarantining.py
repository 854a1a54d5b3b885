"""Remembers sick proxies, so that each is tried again at its own pace and holds nobody up.

The state lives in memory, by pod uid: a new process tries everybody once, which is cheap and never wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from konverge.decide.waving import HARMFUL_REASONS
from konverge.model.condition import Outcome
from konverge.model.proxy import Proxy, ProxyOutcome

FIRST_SECONDS = 1.0
"""Back-off after the first failure; it doubles with each further one ..."""
LONGEST_SECONDS = 60.0
"""... up to this."""
LOCK_SECONDS = 60.0
"""How long the lock of a worker that died while loading refuses every push (``DECLARATIVE_LOCK_TTL`` of Kong)."""


@dataclass(frozen=True, slots=True)
class Ailment:
    """What ails a proxy: since how many tries, with which revision, and when the next try is due (monotonic)."""

    outcome: Outcome
    failures: int
    content: str
    due: float


class Quarantine:
    """The sick proxies of a fleet; ``now`` is seconds of a monotonic clock everywhere.

    ``jitter`` returns a factor from a range; it spreads the tries of proxies that fell ill together.
    """

    def __init__(self, jitter: Callable[[float, float], float] = random.uniform) -> None:
        self._jitter = jitter
        self._ailments: dict[str, Ailment] = {}

    def due(self, proxy: Proxy, now: float, content: str = "") -> bool:
        """Tell whether a proxy may be visited.

        One that refused another revision than ``content`` is not sick for this one.
        """
        ailment = self._ailments.get(proxy.uid)
        if ailment is None or now >= ailment.due:
            return True
        return ailment.outcome.reason in HARMFUL_REASONS and ailment.content != content

    def failed(self, proxy: Proxy, outcome: ProxyOutcome, now: float, content: str = "") -> float:
        """Note a failed visit and return the seconds until the next one."""
        before = self._ailments.get(proxy.uid)
        same = before is not None and before.outcome.reason == outcome.outcome.reason and before.content == content
        failures = before.failures + 1 if before is not None and same else 1
        delay = min(FIRST_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_SECONDS) * self._jitter(0.75, 1.25)
        if outcome.outcome.reason == "WorkerLost":
            delay = LOCK_SECONDS * self._jitter(1.0, 1.25)
        self._ailments[proxy.uid] = Ailment(outcome.outcome, failures, content, now + delay)
        return delay

    def recovered(self, proxy: Proxy) -> bool:
        """Note a good visit; True where the proxy was sick before."""
        return self._ailments.pop(proxy.uid, None) is not None

    def note(self, proxy: Proxy, outcome: ProxyOutcome, now: float, content: str = "") -> None:
        """Note what became of a visit."""
        if outcome.ok:
            self.recovered(proxy)
        elif outcome.outcome.reason != "NotLeading":
            self.failed(proxy, outcome, now, content)

    def keep_only(self, proxies: Iterable[Proxy]) -> None:
        """Forget the proxies that are gone."""
        uids = {proxy.uid for proxy in proxies}
        self._ailments = {uid: ailment for uid, ailment in self._ailments.items() if uid in uids}

    def find(self, proxy: Proxy) -> Ailment | None:
        """Return what ails a proxy."""
        return self._ailments.get(proxy.uid)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until somebody is due; None where nobody is sick."""
        return max(0.0, min(a.due for a in self._ailments.values()) - now) if self._ailments else None
