"""What proxies refuse is synced without the objects to blame; live routes are never dropped for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_gateways import FakeGateways
from fake_kube import FakeKube

from konverge.kong.locating import find_reference
from konverge.kong.outcomes import EntityError, FieldError, PushOutcome, Refused
from konverge.kube.resources import SECRETS, Object
from konverge.model.condition import ObjectRef, Outcome
from konverge.model.fleet import Fleet, FleetSpec, Rollout
from konverge.model.proxy import Blame, ProxyOutcome
from konverge.model.revision import Revision
from konverge.operate import configuring, falling_back
from konverge.operate.falling_back import ROUNDS, Desired, find_blamed, sync_sources
from konverge.operate.remembering import LABEL, Memory
from konverge.operate.rendering import compile_revision
from konverge.operate.revisions import list_records, store_revision
from konverge.operate.syncing import Stop, SyncReport, Verdict
from konverge.translate import render

NOW = datetime(2030, 1, 1, tzinfo=UTC)
BAD = "refuse-me"
"""A configuration with this text in an entity is refused, and the entity named."""


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(configuring, "PROBE_PAUSE", 0.0)
    monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.0)


def ingress(name: str, path: str, plugins: str = "") -> Object:
    annotations = {"konghq.com/plugins": plugins} if plugins else {}
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    rule = {"http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "annotations": annotations},
        "spec": {"ingressClassName": "kong", "rules": [rule]},
    }


def plugin(name: str, message: str) -> Object:
    return {
        "apiVersion": "configuration.konghq.com/v1",
        "kind": "KongPlugin",
        "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}"},
        "plugin": "request-termination",
        "config": {"message": message, "status_code": 503},
    }


SERVICE: Object = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web"},
    "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
}
CLASS: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "kong", "uid": "uid-class"},
    "spec": {"controller": "ingress-controllers.konghq.com/kong"},
}


def refuse_bad(content: bytes, limit: int = 99) -> PushOutcome | None:
    """Refuse what has the bad text in it, naming the objects of at most ``limit`` of its entities."""
    errors: list[EntityError] = []

    def walk(node: Any) -> None:
        for entity in node if isinstance(node, list) else [node]:
            if not isinstance(entity, dict):
                continue
            flat = json.dumps({k: v for k, v in entity.items() if k not in ("routes", "plugins", "services")})
            ref = find_reference(entity.get("tags") or ())
            if BAD in flat and "name" in entity:
                errors.append(EntityError("plugin", "x", "", (FieldError("config", "is bad"),), object=ref))
            for value in entity.values():
                if isinstance(value, list):
                    walk(value)

    walk(json.loads(content))
    return Refused(tuple(errors[:limit])) if errors else None


class Shop:
    """Three proxies that refuse bad entities, and the sources of their fleet."""

    def __init__(self) -> None:
        self.kube, self.gateways = FakeKube(), FakeGateways()
        spec = FleetSpec(proxy_service="s", rollout=Rollout(wave_size=2))
        self.fleet = Fleet(name="shop", namespace="default", spec=spec)
        self.proxies = [self.gateways.add(f"p{n}") for n in range(3)]
        for fake in self.gateways.proxies.values():
            fake.refusal = refuse_bad
            fake.push = self._tracked(fake, fake.push)  # type: ignore[method-assign]
        self.sources: list[Object] = [
            CLASS,
            SERVICE,
            ingress("a", "/a"),
            ingress("b", "/b", "limit"),
            plugin("limit", "x"),
        ]
        self.memory: Memory | None = Memory()
        self.good: Revision | None = None
        self.now = NOW
        self.pushed: list[str] = []

    def _tracked(self, fake: Any, push: Any) -> Any:
        async def tracked(content: bytes) -> Any:
            self.pushed.append(fake.proxy.name)
            # The marker of a revision is what its route answers with; the fake is told as a worker would find it.
            document = json.loads(content)
            marker = next(r for r in document["routes"] if r["name"] == "konverge-revision")
            outcome = await push(content)
            if not isinstance(outcome, Refused):
                fake.routes = marker["plugins"][0]["config"]["body"]
            return outcome

        return tracked

    def change(self, kind: str, name: str, **changes: Any) -> None:
        self.sources = [copy.deepcopy(s) for s in self.sources]
        for source in self.sources:
            if source["kind"] == kind and source["metadata"]["name"] == name:
                source.update(changes)

    async def sync(self) -> SyncReport:
        self.pushed.clear()
        draft, rendered = compile_revision(self.fleet, self.sources, lambda: self.now)
        sources = list(self.sources)
        desired = Desired(draft, lambda: sources, "test", rendered.problems)
        report = await sync_sources(
            self.kube,
            self.fleet,
            self.gateways,
            desired,
            self.proxies,
            previous=self.good,
            memory=self.memory,
            clock=lambda: self.now,
        )
        if not report.harmful:
            self.good = report.revision
        return report

    def paths(self) -> set[str]:
        """The paths of the revision in force."""
        assert self.good is not None
        assert {fake.loaded for fake in self.gateways.proxies.values()} == {self.good.hash}
        services = json.loads(self.good.content).get("services", [])
        return {p for s in services for r in s["routes"] for p in r["paths"] if not p.startswith("~")}

    def secrets(self) -> list[Object]:
        return [s for s in self.kube.all(SECRETS) if LABEL in s["metadata"]["labels"]]


def problems(report: SyncReport) -> dict[str, str]:
    return {str(p.object_ref): p.reason for p in report.problems if "Fallback" in p.reason}


async def test_good_sources_are_stored_and_pushed() -> None:
    shop = Shop()
    report = await shop.sync()
    assert report.verdict is Verdict.COMPLETED
    assert report.revision.number == 1
    assert shop.paths() == {"/a/", "/b/"}
    assert shop.secrets() == []


async def test_a_broken_object_is_used_as_it_last_worked() -> None:
    shop = Shop()
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    shop.sources.append(ingress("c", "/c"))
    report = await shop.sync()
    assert report.verdict is Verdict.COMPLETED
    assert shop.paths() == {"/a/", "/b/", "/c/"}
    assert shop.pushed == ["p0", "p0", "p1", "p2"]
    assert problems(report) == {
        "KongPlugin/shop/limit": "RestoredByFallback",
        "Ingress/shop/b": "RestoredByFallback",
    }
    assert any("Kong: config: is bad" in p.message for p in report.problems)
    records = {r.number: r for r in await list_records(shop.kube, shop.fleet)}
    assert {n: r.status.outcome.value for n, r in records.items()} == {1: "Good", 2: "Harmful", 3: "Good"}
    assert records[3].spec.reason == "fallback without KongPlugin/shop/limit"
    assert len(shop.secrets()) == 1


async def test_a_new_broken_object_is_left_out_and_the_rest_goes_live() -> None:
    shop = Shop()
    await shop.sync()
    shop.sources += [ingress("c", "/c"), ingress("d", "/d", "worse"), plugin("worse", BAD)]
    report = await shop.sync()
    assert shop.paths() == {"/a/", "/b/", "/c/"}
    assert problems(report) == {"KongPlugin/shop/worse": "ExcludedByFallback", "Ingress/shop/d": "ExcludedByFallback"}


async def test_with_nothing_before_it_the_first_revision_is_what_is_left() -> None:
    shop = Shop()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    await shop.sync()
    assert shop.paths() == {"/a/"}


async def test_a_known_broken_object_costs_no_further_refusal() -> None:
    shop = Shop()
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    await shop.sync()
    shop.sources.append(ingress("c", "/c"))
    await shop.sync()
    assert shop.pushed == ["p0", "p1", "p2"]
    assert shop.paths() == {"/a/", "/b/", "/c/"}
    shop.now += timedelta(hours=2)
    await shop.sync()
    assert shop.pushed == ["p0"], "after an hour it is tried again, and refused again"
    assert shop.paths() == {"/a/", "/b/", "/c/"}


async def test_a_repaired_object_is_used_again_and_nothing_is_kept() -> None:
    shop = Shop()
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": "repaired"})
    report = await shop.sync()
    assert b"repaired" in report.revision.content
    assert problems(report) == {}
    assert shop.secrets() == []


async def test_a_new_process_knows_the_last_valid_versions() -> None:
    shop = Shop()
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    await shop.sync()
    shop.memory = Memory()
    shop.sources.append(ingress("c", "/c"))
    report = await shop.sync()
    assert shop.pushed == ["p0", "p1", "p2"], "the refusal is remembered too"
    assert shop.paths() == {"/a/", "/b/", "/c/"}
    assert problems(report)["KongPlugin/shop/limit"] == "RestoredByFallback"
    shop.memory = None
    assert (await shop.sync()).verdict is Verdict.COMPLETED


async def test_live_routes_are_not_dropped_where_no_valid_version_is_known() -> None:
    shop = Shop()
    await shop.sync()
    shop.memory = Memory()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    shop.sources.append(ingress("c", "/c"))
    good = shop.good
    report = await shop.sync()
    assert report.verdict is Verdict.HELD
    assert report.outcome.reason == "FallbackHeld"
    assert "Ingress/shop/b" in report.outcome.message
    assert report.revision == good
    assert shop.paths() == {"/a/", "/b/"}
    assert {r.number: r.status.outcome.value for r in await list_records(shop.kube, shop.fleet)}[1] == "Good"
    joining = shop.gateways.add("p9", ready=False)
    shop.gateways.proxies["p9"].push = shop._tracked(  # type: ignore[method-assign]
        shop.gateways.proxies["p9"], shop.gateways.proxies["p9"].push
    )
    shop.proxies.append(joining)
    await shop.sync()
    assert shop.paths() == {"/a/", "/b/"}, "who joins meanwhile gets the last good one"


async def test_what_was_deleted_meanwhile_does_not_come_back() -> None:
    shop = Shop()
    await shop.sync()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    shop.sources = [s for s in shop.sources if s["metadata"]["name"] != "b"]
    await shop.sync()
    assert shop.paths() == {"/a/"}


async def test_objects_that_are_named_one_after_the_other_are_all_taken_out() -> None:
    shop = Shop()
    for fake in shop.gateways.proxies.values():
        fake.refusal = lambda content: refuse_bad(content, 1)
    for n in range(ROUNDS):
        shop.sources += [ingress(f"x{n}", f"/x{n}", f"bad{n}"), plugin(f"bad{n}", BAD)]
    report = await shop.sync()
    assert report.verdict is Verdict.COMPLETED
    assert shop.paths() == {"/a/", "/b/"}


async def test_the_rounds_are_bounded_and_the_last_good_one_stays() -> None:
    shop = Shop()
    await shop.sync()
    good = shop.good
    for fake in shop.gateways.proxies.values():
        fake.refusal = lambda content: refuse_bad(content, 1)
    for n in range(ROUNDS + 1):
        shop.sources += [ingress(f"x{n}", f"/x{n}", f"bad{n}"), plugin(f"bad{n}", BAD)]
    report = await shop.sync()
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.revision == good
    assert shop.paths() == {"/a/", "/b/"}
    assert shop.pushed == ["p0"] * (ROUNDS + 1)


async def test_a_refusal_without_a_cause_leaves_everything_as_it_is() -> None:
    shop = Shop()
    await shop.sync()
    for fake in shop.gateways.proxies.values():
        fake.refusal = lambda content: Refused()
    shop.sources.append(ingress("c", "/c"))
    report = await shop.sync()
    assert report.verdict is Verdict.ROLLED_BACK
    assert report.outcome.reason == "ConfigurationRefused"
    assert shop.paths() == {"/a/", "/b/"}


async def test_a_last_valid_version_that_is_refused_too_is_left_out() -> None:
    shop = Shop()
    await shop.sync()
    shop.good = None
    for fake in shop.gateways.proxies.values():
        fake.refusal = lambda content: refuse_bad(content.replace(b'"message":"x"', b'"message":"refuse-me"'))
    shop.change("KongPlugin", "limit", config={"message": BAD})
    shop.sources.append(ingress("c", "/c"))
    report = await shop.sync()
    assert report.verdict is Verdict.COMPLETED
    assert shop.paths() == {"/a/", "/c/"}, "and the route does not lose its plugin"
    assert problems(report) == {"KongPlugin/shop/limit": "ExcludedByFallback", "Ingress/shop/b": "ExcludedByFallback"}


def test_objects_are_blamed_only_while_nobody_runs_the_revision() -> None:
    blame = Blame(object=ObjectRef(kind="KongPlugin", namespace="default", name="limit"))
    said = Outcome(reason="ConfigurationRefused")
    refusal = ProxyOutcome(proxy="p2", ok=False, outcome=said, blamed=(blame,))
    stop = Stop(said, refusals=(refusal,))
    assert find_blamed(stop) == (blame,)
    # A proxy that refuses what another one took says something about itself.
    assert find_blamed(replace(stop, proven=True)) == ()
    assert find_blamed(replace(stop, superseded=True)) == ()
    assert find_blamed(None) == ()


def count_renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by one with each rendering of a fallback."""
    renders: list[int] = []

    def counted(objects: Any, *rest: Any) -> Any:
        renders.append(1)
        return render(objects, *rest)

    monkeypatch.setattr(falling_back, "render", counted)
    return renders


async def test_a_fallback_is_rendered_again_only_where_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop()
    await shop.sync()
    shop.memory = Memory()
    shop.change("KongPlugin", "limit", config={"message": BAD})
    renders = count_renders(monkeypatch)
    for _ in range(3):
        assert (await shop.sync()).outcome.reason == "FallbackHeld"
    shop.sources = copy.deepcopy(shop.sources)
    assert (await shop.sync()).outcome.reason == "FallbackHeld"
    assert len(renders) == 1, "nothing changed"
    spec = shop.fleet.spec.model_copy(update={"features": {"CombinedServices": False}})
    changes: list[Callable[[], Any]] = [
        lambda: shop.sources.append(ingress("c", "/c")),
        lambda: shop.change("KongPlugin", "limit", config={"message": f"{BAD} too"}),
        lambda: setattr(shop, "fleet", shop.fleet.replace(spec=spec)),
        lambda: setattr(shop, "now", shop.now + timedelta(hours=2)),
    ]
    for expected, change in enumerate(changes, 2):
        change()
        for _ in range(2):
            assert (await shop.sync()).outcome.reason == "FallbackHeld"
        assert len(renders) == expected
    # With another last good revision other routes are live.
    held = compiled_without(shop, "b")
    shop.good = await store_revision(shop.kube, shop.fleet, held)
    assert (await shop.sync()).verdict is Verdict.COMPLETED
    assert len(renders) == len(changes) + 2


def compiled_without(shop: Shop, name: str) -> Revision:
    sources = [s for s in shop.sources if s["metadata"]["name"] not in (name, "limit")]
    return compile_revision(shop.fleet, sources, lambda: shop.now)[0]
