from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stand_ins import ScriptedAdmin, ScriptedKube, put, view_of

from konverge.errors import Unavailable
from konverge.lab.sidecar.admin import ZEROS, Answer
from konverge.lab.sidecar.reporting import Reporter
from konverge.lab.sidecar.serving import build_health, format_metrics
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.synchronizing import Synchronizer, digest_of, plugin_names
from konverge.lab.sidecar.watching import WATCHED

SETTINGS = SidecarSettings(pod_name="edge-1", pod_namespace="kong", admin_tries=3, admin_delay=0.0, cache_sync=0.0)
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "shop", "namespace": "n", "uid": "u1"},
    "spec": {"ports": [{"port": 80}]},
}


def ingress(host: str, **annotations: str) -> dict[str, Any]:
    backend = {"service": {"name": "shop", "port": {"number": 80}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "shop", "namespace": "n", "uid": "u2", "annotations": annotations},
        "spec": {"ingressClassName": "kong", "rules": [rule]},
    }


class Bench:
    def __init__(self, *objects: dict[str, Any], settings: SidecarSettings = SETTINGS) -> None:
        self.kube, self.admin = ScriptedKube(), ScriptedAdmin()
        self.view = view_of(self.kube, *objects)
        reporter = Reporter(self.kube, self.view, settings)  # type: ignore[arg-type]
        self.loop = Synchronizer(self.view, self.admin, reporter, settings)  # type: ignore[arg-type]

    async def ticks(self, count: int) -> int:
        """Tick, and return how many pushes that made."""
        before = len(self.admin.pushed)
        for _ in range(count):
            await self.loop.tick()
        return len(self.admin.pushed) - before

    def hosts(self) -> list[str]:
        routes = [route for service in self.admin.pushed[-1]["services"] for route in service["routes"]]
        return [host for route in routes for host in route["hosts"]]

    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.kube.events]


async def test_a_change_is_pushed_once_and_makes_the_controller_ready() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    assert not bench.loop.synced.is_set()
    assert await bench.ticks(3) == 1
    assert bench.hosts() == ["a.test"]
    assert bench.loop.synced.is_set()
    assert bench.reasons() == ["KongConfigurationSucceeded"]
    put(bench.view, ingress("b.test"))
    assert await bench.ticks(2) == 1
    assert bench.hosts() == ["b.test"]


async def test_an_event_that_changes_nothing_is_translated_and_not_pushed() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    await bench.ticks(1)
    put(bench.view, ingress("a.test"))
    assert await bench.ticks(1) == 0
    assert bench.loop.counters.translations == 2


async def test_a_proxy_that_lost_its_configuration_is_pushed_to_again() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    await bench.ticks(1)
    bench.admin.hash = ZEROS
    assert await bench.ticks(2) == 1


async def test_a_proxy_with_another_configuration_is_not_noticed() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    await bench.ticks(1)
    bench.admin.hash = "f" * 32
    # The flaw of the legacy topology: the loaded hash is never compared.
    assert await bench.ticks(3) == 0


REFUSAL = Answer(
    400,
    "declarative config is invalid",
    (
        {
            "entity_type": "route",
            "entity_name": "n.shop",
            "entity_tags": [
                "k8s-name:shop", "k8s-namespace:n", "k8s-kind:Ingress", "k8s-uid:u2",
                "k8s-group:networking.k8s.io", "k8s-version:v1",
            ],
            "errors": [
                {"type": "field", "field": "paths.1", "message": "bad"},
                {"type": "entity", "message": "worse"},
            ],
        },
        {"entity_type": "route", "entity_tags": ["k8s-name:x"], "errors": [{"message": "nobody's"}]},
    ),
)  # fmt: skip


async def test_a_refusal_at_first_is_repeated_at_every_tick_and_leaves_it_unready() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    bench.admin.answers = [REFUSAL, REFUSAL]
    assert await bench.ticks(2) == 2
    assert not bench.loop.synced.is_set()
    blamed = [event for event in bench.kube.events if event["involvedObject"]["kind"] == "Ingress"]
    assert [event["message"] for event in blamed] == ["invalid paths.1: bad", "invalid route:n.shop: worse"]
    assert {event["reason"] for event in blamed} == {"KongConfigurationApplyFailed"}
    assert blamed[0]["involvedObject"]["apiVersion"] == "networking.k8s.io/v1"
    assert await bench.ticks(1) == 1
    assert bench.loop.synced.is_set()


async def test_after_a_refusal_the_last_good_document_is_sent_again() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    await bench.ticks(1)
    put(bench.view, ingress("b.test"))
    bench.admin.answers = [REFUSAL]
    assert await bench.ticks(1) == 2
    assert bench.hosts() == ["a.test"]
    # The refused one is tried again at the next tick, and is taken this time.
    assert await bench.ticks(1) == 1
    assert bench.hosts() == ["b.test"]


@pytest.mark.parametrize("status", [413, 429, 500, 503])
async def test_any_other_failure_is_only_repeated(status: int) -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    await bench.ticks(1)
    put(bench.view, ingress("b.test"))
    bench.admin.answers = [Answer(status)]
    assert await bench.ticks(1) == 1
    assert await bench.ticks(1) == 1
    assert bench.loop.counters.pushes == {True: 2, False: 1}


async def test_a_problem_of_translation_is_an_event_on_its_object() -> None:
    bench = Bench(ingress("a.test"))
    await bench.ticks(2)
    warnings = [event for event in bench.kube.events if event["type"] == "Warning"]
    assert [event["reason"] for event in warnings] == ["KongConfigurationTranslationFailed"]
    assert warnings[0]["involvedObject"]["name"] == "shop"
    assert "shop" in warnings[0]["message"]


async def test_nothing_to_configure_is_still_a_document_that_makes_kong_ready() -> None:
    bench = Bench()
    await bench.ticks(1)
    assert bench.admin.pushed == [{"_format_version": "3.0", "upstreams": [{"name": "kong"}]}]


async def test_plugin_defaults_come_from_the_gateway() -> None:
    plugin = {
        "apiVersion": "configuration.konghq.com/v1",
        "kind": "KongPlugin",
        "metadata": {"name": "limit", "namespace": "n"},
        "plugin": "rate-limiting",
        "config": {"minute": 5},
    }
    bench = Bench(SERVICE, ingress("a.test", **{"konghq.com/plugins": "limit"}), plugin)
    bench.admin.schemas["rate-limiting"] = {
        "fields": [{"config": {"type": "record", "fields": [{"policy": {"type": "string", "default": "local"}}]}}]
    }
    await bench.ticks(1)
    assert bench.admin.pushed[0]["plugins"][0]["config"] == {"minute": 5, "policy": "local"}


async def test_the_gateway_is_waited_for_and_its_router_decides_the_form_of_routes() -> None:
    bench = Bench(SERVICE, ingress("a.test"))
    bench.admin.unreachable = 2
    bench.admin.root["configuration"]["router_flavor"] = "expressions"
    await bench.loop.meet_proxy()
    await bench.ticks(1)
    route = bench.admin.pushed[0]["services"][0]["routes"][0]
    assert "a.test" in route["expression"]


async def test_a_gateway_that_never_comes_ends_the_controller() -> None:
    bench = Bench()
    bench.admin.unreachable = 99
    with pytest.raises(Unavailable):
        await bench.loop.run()


async def test_the_loop_survives_a_gateway_that_goes_away() -> None:
    settings = SidecarSettings(sync_seconds=0.0, cache_sync=0.0)
    bench = Bench(SERVICE, ingress("a.test"), settings=settings)
    task = asyncio.create_task(bench.loop.run())
    await bench.loop.synced.wait()
    bench.admin.unreachable = 3
    bench.admin.hash = ZEROS
    async with asyncio.timeout(5):
        while len(bench.admin.pushed) < 2:  # noqa: ASYNC110 - the scripted gateway tells nobody
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_readiness_and_metrics_show_the_state() -> None:
    from aiohttp.test_utils import TestClient, TestServer

    bench = Bench(SERVICE, ingress("a.test"))
    async with TestClient(TestServer(build_health(bench.loop))) as client:
        assert (await client.get("/healthz")).status == 200
        assert (await client.get("/readyz")).status == 503
        await bench.ticks(1)
        assert (await client.get("/readyz")).status == 200
    text = format_metrics(bench.loop, bench.kube, bench.admin)  # type: ignore[arg-type]
    assert 'push_count{dataplane="https://localhost:8444",protocol="db-less",success="true"} 1' in text
    assert 'rest_client_requests_total{host="https://kube.test"} 7' in text


def test_the_digest_ignores_the_order_of_keys_and_not_that_of_lists() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})


def test_plugins_of_filters_need_schemas_too() -> None:
    assert plugin_names([{"kind": "KongPlugin", "plugin": "cors"}, {"kind": "Secret"}]) == {"cors"}
    assert "redirect" in plugin_names([{"kind": "HTTPRoute"}])


def test_every_kind_of_the_real_controller_is_watched() -> None:
    assert len(WATCHED) == 25
