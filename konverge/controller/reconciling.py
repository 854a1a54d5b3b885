"""Brings a fleet from what is observed to what is desired; level-triggered, each step sees everything anew.

A draft is compiled once per change and stored before the first push. Proxies that carry traffic get it in waves;
proxies that do not are onboarded, each as soon as it listens. A draft that proves harmful is taken back: the last
good revision is in force until the sources change. Between changes the loaded hashes are read from the proxies,
never from Kubernetes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from konverge.controller.aiming import Aim
from konverge.controller.bringing import Bringer
from konverge.controller.commissioning import Commissioner
from konverge.controller.mending import Mender
from konverge.controller.patrolling import Patrol
from konverge.controller.reaching import Reach
from konverge.controller.rolling import Roller
from konverge.controller.roster import Member, Roster
from konverge.controller.site import Counters, Site
from konverge.controller.stating import States
from konverge.controller.watching import Sources
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.discovering import read_proxies
from konverge.operate.fleets import parse_fleet

log = logging.getLogger(__name__)


class Reconciler:
    """One fleet: what it should run, its proxies, and the verbs that bring the two together."""

    def __init__(
        self,
        kube: KubeClient,
        sources: Sources,
        clock: Clock = utc_now,
        *,
        may_act: Callable[[], bool] = lambda: True,
        identity: str = "",
    ) -> None:
        self.kube = kube
        self.sources = sources
        self.site = Site(
            kube,
            sources,
            clock,
            may_act,
            Aim(kube, sources, clock),
            Roster(),
            Reach(kube, clock),
            States(kube, clock, identity),
        )
        self._patrol = Patrol(self.site)
        self._roller = Roller(self.site, self._patrol)
        self._mender = Mender(self.site)
        self._bringer = Bringer(self.site, self._mender)
        self.commissioner = Commissioner(self.site, self._mender)

    @property
    def counters(self) -> Counters:
        """What was done since the start."""
        return self.site.counters

    @property
    def revision(self) -> Revision | None:
        """The revision in force."""
        return self.site.aim.revision

    @property
    def last_error(self) -> str:
        """The last failure, "" where there was none."""
        return self.site.last_error

    def read_fleet(self) -> Fleet | None:
        """Return the fleet as it was seen last; None where there is none. Invalid names the field that is wrong."""
        body = self.sources.fleet()
        return parse_fleet(body) if body is not None else None

    async def reconcile(self) -> None:
        """Do everything that is to be done now, and wait for its end; the running controller does it in parallel."""
        fleet = self.read_fleet()
        if fleet is None or fleet.spec.paused:
            return
        await self.compile(fleet)
        self.meet(fleet)
        await self.look(fleet, list(self.site.roster))
        while await self.act(fleet):
            await self.site.finish()
        await self.site.states.flush()

    async def compile(self, fleet: Fleet) -> bool:
        """Bring the draft up to date; True where it is another one than before. Nothing is pushed."""
        aim, states = self.site.aim, self.site.states
        states.open(fleet)
        rendered = aim.compiler.rendered
        changed = await aim.compile(fleet)
        self.counters.compiled += aim.compiler.rendered - rendered
        if aim.compiled is not None and changed:
            states.tell_problems(aim.compiled.problems)
        if changed or not aim.recalled:
            for content, number in (await aim.recall(fleet)).items():
                if content not in self.site.known:
                    self.site.known[content] = number
            if aim.settled is not None and aim.is_settled:
                states.aim(aim.settled.revision, setback=fleet.status.setback)
        return changed

    def meet(self, fleet: Fleet) -> tuple[Member, ...]:
        """Take the proxies as they are seen now; returns those whose readiness changed."""
        proxies = read_proxies(fleet, self.sources.slices(fleet.admin_service))
        movement = self.site.roster.update(proxies, time.monotonic())
        for member in movement.came:
            log.info("proxy %s/%s at %s came", member.proxy.namespace, member.proxy.name, member.proxy.ip)
        for member in movement.left:
            log.info("proxy %s/%s left", member.proxy.namespace, member.proxy.name)
        if movement.left:
            self.site.states.keep_only(proxies)
            self.site.start(self.site.reach.retain(proxies))
        return movement.flipped

    async def look(self, fleet: Fleet, members: Sequence[Member], spread: float = 0.0) -> bool:
        """Compare what members run with what was verified on them; True where somebody has to be set right."""
        chosen = [member for member in members if not member.busy and self._patrol.find_desired(member)]
        if not chosen:
            return False
        gateways = await self.site.reach.open(fleet)
        return await self._patrol.look(fleet, gateways, chosen, spread)

    async def act(self, fleet: Fleet) -> bool:
        """Start what is to be done, without waiting for it; True where anything was started."""
        site = self.site
        site.states.open(fleet)
        # Whose readiness changed may have started again, with what was on its disk.
        await self.look(fleet, self.meet(fleet))
        if fleet.spec.paused or site.stopping or not site.aim.recalled or not site.may_act():
            return False
        mended = await self._mender.start(fleet)
        if fleet.spec.runner == "prefect":
            return await self.commissioner.start(fleet) or mended
        await self.commissioner.rest(fleet)
        rolled = await self._roller.start(fleet)
        return await self._bringer.start(fleet) or rolled or mended

    async def stop(self) -> None:
        """End what is under way at the next boundary of a wave, and wait for it."""
        self.site.stopping = True
        await self.site.finish()

    async def abandon(self) -> None:
        """Stop at once: somebody else may act from now on."""
        await self.site.abandon()

    async def close(self) -> None:
        """Close the connections to the proxies."""
        await self.site.reach.close()
