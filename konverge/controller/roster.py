"""Who belongs to the fleet, and what the controller knows of each; in memory, found out anew by the next process."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from konverge.model.proxy import Proxy, ProxyOutcome
from konverge.operate.quarantining import Quarantine

FIRST_KNOCK = 0.1
"""Seconds until a proxy that does not listen yet is tried again; they grow by half with each try ..."""
LONGEST_KNOCK = 1.0
"""... up to this ..."""
KNOCKING_SECONDS = 90.0
"""... while the pod is this young; later it goes by the back-off of every sick proxy."""
NOT_LISTENING = "ProxyUnreachable"


@dataclass(eq=False, slots=True)
class Member:
    """One proxy of the fleet. Times are seconds of a monotonic clock."""

    proxy: Proxy
    since: float
    verified: str = ""
    """The hash that was read back and probed last; "" where nothing is known or what was known does not hold."""
    open: bool = False
    """Whether we opened its gate, or found it in traffic."""
    healing: bool = False
    """Whether it had drifted and waits to be set right."""
    reported: str = ""
    """The foreign hash that is let be, because the fleet's drift policy is to report."""
    busy: bool = False
    """Whether somebody visits it now: one visit at a time."""
    owes: bool = False
    """Whether it runs with another identity than the stored one, and has to be reloaded before it is onboarded."""
    gate_known: bool = False
    """Whether its gate was read since it is out of traffic: others may have closed it."""
    mends: int = 0
    mend_at: float = 0.0
    knocks: int = 0
    knock_at: float = 0.0

    @property
    def serving(self) -> bool:
        """Whether it carries traffic, as far as the EndpointSlices tell."""
        return self.proxy.ready

    def knock_later(self, now: float) -> float:
        """Return the seconds until the next try at a proxy that does not listen yet."""
        delay = min(FIRST_KNOCK * 1.5**self.knocks, LONGEST_KNOCK) * random.uniform(0.8, 1.2)
        self.knocks, self.knock_at = self.knocks + 1, now + delay
        return delay


@dataclass(frozen=True, slots=True)
class Movement:
    """What changed among the members: who came, who left, and whose readiness changed."""

    came: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    flipped: tuple[Member, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.came or self.left or self.flipped)


@dataclass(slots=True)
class Roster:
    """The members by pod uid, and the sick among them."""

    members: dict[str, Member] = field(default_factory=dict)
    quarantine: Quarantine = field(default_factory=Quarantine)

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self.members.values()))

    def update(self, proxies: Iterable[Proxy], now: float) -> Movement:
        """Take the proxies as they are seen now."""
        seen = {proxy.uid or proxy.name: proxy for proxy in proxies}
        left = [self.members.pop(uid) for uid in [uid for uid in self.members if uid not in seen]]
        came, flipped = [], []
        for uid, proxy in seen.items():
            member = self.members.get(uid)
            if member is None:
                member = self.members[uid] = Member(proxy, now)
                came.append(member)
            elif member.proxy.ready != proxy.ready:
                flipped.append(member)
                member.gate_known = False
            member.proxy = proxy
            member.open = member.open or proxy.ready
        self.quarantine.keep_only(seen.values())
        return Movement(tuple(came), tuple(left), tuple(flipped))

    def find(self, proxy: Proxy) -> Member | None:
        """Return the member that a proxy is; None where it left meanwhile."""
        return self.members.get(proxy.uid or proxy.name)

    def is_due(self, member: Member, now: float, content: str) -> bool:
        """Tell whether a member may be visited now."""
        if member.busy:
            return False
        if self._is_starting(member, now):
            return now >= member.knock_at
        return self.quarantine.due(member.proxy, now, content)

    def note(self, member: Member, outcome: ProxyOutcome, now: float, content: str) -> None:
        """Note what became of a visit."""
        self.quarantine.note(member.proxy, outcome, now, content)
        if outcome.ok:
            member.knocks = 0
        elif self._is_starting(member, now):
            member.knock_later(now)

    def next_due(self, now: float) -> float | None:
        """Return the seconds until somebody who is sick or starting is to be tried again.

        None where nobody is, or who is was due by ``now`` already.
        """
        times = []
        for member in self:
            ailment = self.quarantine.find(member.proxy)
            if ailment is not None and not member.busy:
                times.append((member.knock_at if self._is_starting(member, now) else ailment.due) - now)
        return min((seconds for seconds in times if seconds > 0), default=None)

    def _is_starting(self, member: Member, now: float) -> bool:
        """Whether a member is one that does not listen yet: young, out of traffic, never reached."""
        ailment = self.quarantine.find(member.proxy)
        return (
            ailment is not None
            and ailment.outcome.reason == NOT_LISTENING
            and not member.open
            and not member.serving
            and now - member.since < KNOCKING_SECONDS
        )
