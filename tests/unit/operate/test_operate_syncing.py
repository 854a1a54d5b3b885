"""Syncing stops a harmful revision at its first wave, isolates sick proxies, and onboards in the right order."""

from __future__ import annotations

from typing import Any

import pytest
from fake_gateways import FakeGateways
from fake_kube import FakeKube

from konverge.errors import CheckRefused, Unavailable, VerificationFailed
from konverge.kube.resources import PODS, PROXY_INSTANCES
from konverge.model.fleet import Counts, Fleet, FleetSpec, Rollout
from konverge.model.proxy import CONFIGURED_GATE, Proxy
from konverge.model.revision import Revision
from konverge.operate import configuring
from konverge.operate.fleets import apply_fleet, list_instances
from konverge.operate.onboarding import onboard_proxies, set_gate
from konverge.operate.syncing import summarise_fleet, sync_fleet

OLD = Revision(number=1, content=b'{"old":1}', marker="old")
NEW = Revision(number=2, content=b'{"new":1}', marker="new")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(configuring, "PROBE_PAUSE", 0.0)
    monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)


class Site:
    """A fleet of proxies that run the old revision and carry traffic."""

    def __init__(self, count: int, **rollout: Any) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        self.gateways.markers = {r.hash: r.marker for r in (OLD, NEW)}
        self.spec = FleetSpec(proxy_service="s", rollout=Rollout(**{"canary": 1, "wave_size": 2, **rollout}))
        self.fleet = Fleet(name="shop", namespace="default", spec=self.spec)
        self.proxies = [self.add(f"p{i}") for i in range(count)]

    def add(self, name: str, *, ready: bool = True, loaded: Revision | None = OLD) -> Proxy:
        proxy = self.gateways.add(name, ready=ready)
        if loaded is not None:
            self.gateways.proxies[name].loaded, self.gateways.proxies[name].routes = loaded.hash, loaded.marker
        self.kube.put(PODS, {"metadata": {"name": name}, "status": {"conditions": []}})
        return proxy

    async def sync(self, revision: Revision = NEW) -> list[bool]:
        report = await sync_fleet(self.kube, self.fleet, self.gateways, revision, self.proxies)
        report.raise_for_harm()
        return [outcome.ok for outcome in report.outcomes]

    def pushes(self) -> list[int]:
        return [self.gateways.proxies[p.name].pushes for p in self.proxies]

    def gate(self, name: str) -> str | None:
        conditions = self.kube.one(PODS, name)["status"]["conditions"]
        return next((c["status"] for c in conditions if c["type"] == CONFIGURED_GATE), None)


async def test_every_proxy_gets_it_and_says_so() -> None:
    site = Site(5)
    assert await site.sync() == [True] * 5
    instances = await list_instances(site.kube, site.fleet)
    assert {s.loaded_revision for s in instances.values()} == {2}
    assert len(instances) == 5


async def test_what_runs_already_is_not_pushed_again() -> None:
    site = Site(5)
    await site.sync()
    await site.sync()
    assert site.pushes() == [1] * 5


async def test_a_refused_revision_stops_at_the_canary_and_names_it() -> None:
    site = Site(5)
    for fake in site.gateways.proxies.values():
        fake.refuses = True
    with pytest.raises(VerificationFailed, match="Revision 2 stopped at canary: proxy p0") as caught:
        await site.sync()
    assert caught.value.reason == "ConfigurationRefused"
    assert site.pushes() == [1, 0, 0, 0, 0]
    assert {f.loaded for f in site.gateways.proxies.values()} == {OLD.hash}


async def test_a_revision_that_does_not_route_stops_as_well() -> None:
    site = Site(5)
    site.gateways.proxies["p2"].stuck = True
    with pytest.raises(VerificationFailed, match="stopped at wave-1: proxy p2") as caught:
        await site.sync()
    assert caught.value.reason == "DataPathFailed"
    assert site.pushes() == [1, 1, 1, 0, 0]


async def test_the_budget_of_failures_is_kept() -> None:
    site = Site(5, max_failures=1)
    site.gateways.proxies["p2"].refuses = True
    assert await site.sync() == [True, True, False, True, True]


@pytest.mark.parametrize("sick", [["p0"], ["p1", "p3"], ["p0", "p1", "p2", "p3", "p4"]])
async def test_sick_proxies_do_not_hold_the_others_back(sick: list[str]) -> None:
    site = Site(5)
    for name in sick:
        site.gateways.proxies[name].sick = Unavailable("down", reason="ProxyUnreachable")
    assert await site.sync() == [p.name not in sick for p in site.proxies]
    instances = await list_instances(site.kube, site.fleet)
    assert {name for name, s in instances.items() if s.phase == "Quarantined"} == set(sick)


async def test_a_paused_fleet_is_not_touched() -> None:
    site = Site(2)
    site.fleet = site.fleet.replace(spec=site.spec.replace(paused=True))
    with pytest.raises(CheckRefused, match="shop is paused") as caught:
        await site.sync()
    assert caught.value.reason == "Paused"
    assert site.pushes() == [0, 0]
    assert site.kube.writes == []


async def test_no_more_proxies_are_visited_at_once_than_allowed() -> None:
    site = Site(13, concurrency=3, wave_size=12, growth=12)
    busy, most = set(), 0
    for fake in site.gateways.proxies.values():
        original = fake.push

        async def push(content: bytes, fake: Any = fake, original: Any = original) -> Any:
            nonlocal most
            busy.add(fake)
            most = max(most, len(busy))
            try:
                return await original(content)
            finally:
                busy.discard(fake)

        fake.push = push  # type: ignore[method-assign]
    await site.sync()
    assert most == 3


async def summarise(site: Site, revision: Revision = NEW) -> Any:
    await apply_fleet(site.kube, "shop", "default", site.spec)
    return await summarise_fleet(site.kube, site.fleet, revision)


async def test_the_last_good_revision_is_one_that_every_reachable_proxy_runs() -> None:
    site = Site(3)
    site.gateways.proxies["p1"].sick = Unavailable("down", reason="ProxyUnreachable")
    await site.sync()
    status = await summarise(site)
    assert status.counts == Counts(total=3, synced=2, drifted=0, quarantined=1, ready=2)
    assert status.last_good_revision == 2
    assert status.last_good_hash == NEW.hash


async def test_a_stopped_revision_does_not_become_the_last_good_one() -> None:
    site = Site(5)
    await site.sync(OLD)
    await summarise(site, OLD)
    for fake in site.gateways.proxies.values():
        fake.stuck = True
    with pytest.raises(VerificationFailed):
        await site.sync()
    status = await summarise(site)
    assert (status.current_revision, status.last_good_revision) == (2, 1)


async def test_a_lone_proxy_that_does_not_route_makes_no_good_revision() -> None:
    site = Site(1)
    site.gateways.proxies["p0"].stuck = True
    with pytest.raises(VerificationFailed):
        await site.sync()
    assert (await summarise(site)).last_good_revision == 0


async def test_nothing_reachable_is_nothing_good() -> None:
    site = Site(2)
    for fake in site.gateways.proxies.values():
        fake.sick = Unavailable("down", reason="ProxyUnreachable")
    await site.sync()
    assert (await summarise(site)).last_good_revision == 0


async def test_onboarding_is_identity_then_configuration_then_traffic() -> None:
    site = Site(0)
    proxy = site.add("p0", ready=False, loaded=None)
    fake = site.gateways.proxies["p0"]
    site.kube.before.append(lambda call: fake.log.append("gate") if call.resource == PODS else None)
    outcomes = await onboard_proxies(site.kube, site.fleet, site.gateways, NEW, [proxy])
    assert outcomes[0].ok
    assert fake.log == ["identify", "hash", "push", "hash", "probe", "gate"]
    assert site.gate("p0") == "True"


@pytest.mark.parametrize("fault", ["sick", "refuses", "stuck"])
async def test_a_proxy_that_is_not_proven_keeps_its_gate_closed(fault: str) -> None:
    site = Site(0)
    proxies = [site.add(f"p{i}", ready=False, loaded=None) for i in range(3)]
    bad: Any = Unavailable("down") if fault == "sick" else True
    setattr(site.gateways.proxies["p1"], fault, bad)
    outcomes = await onboard_proxies(site.kube, site.fleet, site.gateways, NEW, proxies)
    assert [o.ok for o in outcomes] == [True, False, True]
    # One that does not answer may serve well: its gate is left as it is.
    assert [site.gate(p.name) for p in proxies] == ["True", None if fault == "sick" else "False", "True"]
    assert not (await list_instances(site.kube, site.fleet))["p1"].traffic_ready


async def test_a_gate_leaves_the_conditions_of_others_alone_and_can_close_again() -> None:
    site = Site(1)
    site.kube.one(PODS, "p0")["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    outcomes = await onboard_proxies(site.kube, site.fleet, site.gateways, NEW, site.proxies)
    await set_gate(site.kube, site.proxies[0], outcomes[0].model_copy(update={"ok": False}))
    conditions = {c["type"]: c["status"] for c in site.kube.one(PODS, "p0")["status"]["conditions"]}
    assert conditions == {"Ready": "True", CONFIGURED_GATE: "False"}


async def test_a_pod_that_went_meanwhile_is_no_error() -> None:
    site = Site(1)
    site.kube.drop(PODS, "p0")
    outcomes = await onboard_proxies(site.kube, site.fleet, site.gateways, NEW, site.proxies)
    assert outcomes[0].ok
    assert len(site.kube.all(PROXY_INSTANCES)) == 1
