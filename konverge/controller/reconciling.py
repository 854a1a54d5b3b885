"""Brings a fleet from what is observed to what is desired; level-triggered: it reads everything anew each time.

A revision is compiled once per change and stored before the first push. Proxies that carry traffic get it in waves;
proxies that do not are onboarded. A revision that proves harmful is taken back: the last good one is in force until
the sources change. Between changes the loaded hashes are read from the proxies, never from Kubernetes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from konverge.controller.watching import Sources
from konverge.decide.waving import may_continue
from konverge.errors import KonvergeError, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.kube.resources import SECRETS
from konverge.model.fleet import Fleet
from konverge.model.proxy import ZERO_HASH, Proxy, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.connecting import open_gateways
from konverge.operate.discovering import read_proxies
from konverge.operate.fleets import parse_fleet
from konverge.operate.identities import ensure_identity
from konverge.operate.onboarding import onboard_proxies, set_gate
from konverge.operate.ports import Gateways
from konverge.operate.rendering import compile_revision
from konverge.operate.revisions import load_revision, store_revision
from konverge.operate.syncing import summarise_fleet, sync_proxies

log = logging.getLogger(__name__)

HARMFUL_SECONDS = 300.0
"""Seconds until a revision that was stopped is tried on the canary again: what failed may have been the canary."""


@dataclass(slots=True)
class Counters:
    """What the controller has done since it started; shown by /metrics."""

    compiled: int = 0
    revisions: int = 0
    syncs: int = 0
    onboarded: int = 0
    drifted: int = 0
    failures: int = 0


@dataclass(slots=True)
class Reconciler:
    """One fleet's desired revision and what is known of its proxies."""

    kube: KubeClient
    sources: Sources
    clock: Clock = utc_now
    revision: Revision | None = None
    counters: Counters = field(default_factory=Counters)
    last_error: str = ""
    _loaded: dict[str, str] = field(default_factory=dict)
    """Pod uid to the hash that was verified last."""
    _harmful: str = ""
    """Hash of a revision that was stopped: the last good one is in force instead ..."""
    _harmful_until: float = 0.0
    """... until then, in seconds of the monotonic clock; a new revision is tried at once."""

    async def reconcile(self) -> None:
        """Compile, store, push, onboard; failures are logged and tried again with the next call."""
        body = self.sources.fleet()
        if body is None:
            return
        fleet = parse_fleet(body)
        if fleet.spec.paused:
            return
        await self._identify(fleet)
        revision = await self._avoid_harm(fleet, await self._compile(fleet))
        proxies = read_proxies(fleet, self.sources.slices(fleet.admin_service))
        self._loaded = {uid: loaded for uid, loaded in self._loaded.items() if uid in {p.uid for p in proxies}}
        async with open_gateways(self.kube, fleet, self.clock) as gateways:
            await self._find_drift(gateways, [p for p in proxies if p.uid in self._loaded], revision)
            pending = [p for p in proxies if self._loaded.get(p.uid) != revision.hash or not p.ready]
            if pending or fleet.status.current_hash != revision.hash:
                await self._bring_up(fleet, gateways, revision, pending)

    async def _identify(self, fleet: Fleet) -> None:
        """Create the identities that the pods of a new fleet wait for; what exists stays as it is."""
        names = (fleet.authority_secret, fleet.controller_secret, fleet.proxy_secret)
        found = await asyncio.gather(*(self.kube.find(SECRETS, name, fleet.namespace) for name in names))
        if not all(found):
            await ensure_identity(self.kube, fleet, self.clock)

    async def _compile(self, fleet: Fleet) -> Revision:
        objects = list(self.sources.objects())
        draft, rendered = await asyncio.to_thread(compile_revision, fleet, objects, self.clock)
        self.counters.compiled += 1
        if self.revision is not None and self.revision.hash == draft.hash:
            return self.revision
        for problem in rendered.problems:
            log.warning("%s: %s: %s", problem.object_ref, problem.reason, problem.message)
        self.revision = await store_revision(self.kube, fleet, draft, author="controller", clock=self.clock)
        self.counters.revisions += 1
        log.info("revision %d: %d routes, hash %s", self.revision.number, self.revision.routes, self.revision.hash)
        return self.revision

    async def _avoid_harm(self, fleet: Fleet, revision: Revision) -> Revision:
        """Return the last good revision in place of one that was stopped: it is taken back, and others can join."""
        good = fleet.status.last_good_revision
        if revision.hash != self._harmful or not good or time.monotonic() >= self._harmful_until:
            return revision
        return await load_revision(self.kube, fleet, good)

    async def _find_drift(self, gateways: Gateways, proxies: Sequence[Proxy], revision: Revision) -> None:
        """Read every known proxy's hash and forget those that lost or changed their configuration."""
        hashes = await asyncio.gather(*(_read_hash(gateways, proxy) for proxy in proxies))
        for proxy, loaded in zip(proxies, hashes, strict=True):
            if loaded is not None and loaded != self._loaded[proxy.uid]:
                log.warning("proxy %s drifted: it has loaded %s, not %s", proxy.name, loaded, revision.hash)
                self.counters.drifted += 1
                del self._loaded[proxy.uid]

    async def _bring_up(self, fleet: Fleet, gateways: Gateways, revision: Revision, pending: Sequence[Proxy]) -> None:
        serving = [proxy for proxy in pending if proxy.ready]
        joining = [proxy for proxy in pending if not proxy.ready]
        try:
            if serving:
                self.counters.syncs += 1
                outcomes = await sync_proxies(self.kube, fleet, gateways, revision, serving, self.clock)
                self._remember(serving, outcomes)
                await self._close_gates(serving, outcomes)
            if joining:
                outcomes = await onboard_proxies(self.kube, fleet, gateways, revision, joining, self.clock)
                self.counters.onboarded += sum(1 for outcome in outcomes if outcome.ok)
                self._remember(joining, outcomes)
                if not may_continue(outcomes, fleet.spec.rollout):
                    self._avoid(revision)
        except VerificationFailed as error:
            self.counters.failures += 1
            self.last_error = error.message
            self._avoid(revision)
            log.exception("revision %d is harmful and was stopped", revision.number)
        await summarise_fleet(self.kube, fleet, revision, self.clock)

    def _avoid(self, revision: Revision) -> None:
        self._harmful, self._harmful_until = revision.hash, time.monotonic() + HARMFUL_SECONDS

    def _remember(self, proxies: Sequence[Proxy], outcomes: Sequence[ProxyOutcome]) -> None:
        by_name = {outcome.proxy: outcome for outcome in outcomes}
        for proxy in proxies:
            outcome = by_name.get(proxy.name)
            if outcome is not None and outcome.ok:
                self._loaded[proxy.uid] = outcome.loaded_hash
            elif outcome is not None:
                self.counters.failures += 1
                log.warning("proxy %s: %s: %s", proxy.name, outcome.outcome.reason, outcome.outcome.message)

    async def _close_gates(self, proxies: Sequence[Proxy], outcomes: Sequence[ProxyOutcome]) -> None:
        """Take proxies out of traffic that say that they hold no configuration.

        One that does not answer us is left alone: it may serve well, and what separates us from it may separate us
        from all of them.
        """
        lost = {outcome.proxy: outcome for outcome in outcomes if not outcome.ok and outcome.loaded_hash == ZERO_HASH}
        for proxy in proxies:
            if proxy.name in lost:
                await set_gate(self.kube, proxy, lost[proxy.name], self.clock)


async def _read_hash(gateways: Gateways, proxy: Proxy) -> str | None:
    """Return the loaded hash, or None where the proxy does not answer: silence is no drift."""
    try:
        return await gateways.reach(proxy).loaded_hash()
    except KonvergeError:
        return None
