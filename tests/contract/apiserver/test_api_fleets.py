"""Our own definitions on an API server: its CEL accepts and refuses exactly what the models do, in the same words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from api_wire import wait_for

from konverge.errors import Busy, Invalid, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.crds import KINDS, build_crds
from konverge.kube.resources import CRDS, EVENTS, PROXY_FLEETS, PROXY_INSTANCES, Object
from konverge.model.condition import ObjectRef, Outcome, set_condition
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Mtls, Phase, Proxy, ProxyStatus
from konverge.operate.clock import utc_now
from konverge.operate.events import Recorder
from konverge.operate.fleets import list_instances, parse_fleet
from konverge.operate.instances import InstanceWriter
from tests.unit.model.fleet_examples import ACCEPTED, BOUNDED, REFUSED, complete


@pytest.fixture
async def kube(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    async with await KubeClient.connect(kubeconfig) as client:
        held = {item["metadata"]["name"] for item in await client.list_all(CRDS)}
        for body in build_crds():
            if body["metadata"]["name"] not in held:
                await client.create(CRDS, body)

        async def served() -> bool:
            """Established is not enough: a server builds the storage of a new kind a moment later."""
            try:
                for resource, *_ in KINDS:
                    await client.list_all(resource)
            except (Busy, NotFound):
                return False
            return True

        await wait_for(served)
        yield client


def fleet(namespace: str, spec: dict[str, Any], name: str = "shop") -> Object:
    return {
        "apiVersion": PROXY_FLEETS.api_version,
        "kind": PROXY_FLEETS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": complete(spec),
    }


async def test_what_the_models_accept_is_accepted(kube: KubeClient, ns: str) -> None:
    for number, spec in enumerate(ACCEPTED.values()):
        created = await kube.create(PROXY_FLEETS, fleet(ns, spec, f"shop-{number}"))
        assert parse_fleet(created).spec == FleetSpec.model_validate(complete(spec))


async def test_what_the_models_refuse_is_refused_in_the_same_words(kube: KubeClient, ns: str) -> None:
    for name, (spec, field, part) in REFUSED.items():
        with pytest.raises(Invalid) as caught:
            await kube.create(PROXY_FLEETS, fleet(ns, spec))
        assert field in caught.value.message, name
        assert part in caught.value.message, name


async def test_bounds_are_in_the_schema(kube: KubeClient, ns: str) -> None:
    for name, (spec, field) in BOUNDED.items():
        with pytest.raises(Invalid) as caught:
            await kube.create(PROXY_FLEETS, fleet(ns, spec))
        assert field in caught.value.message, name


async def test_a_long_name_and_a_change_of_mode_are_refused(kube: KubeClient, ns: str) -> None:
    with pytest.raises(Invalid, match="longer than 50 characters"):
        await kube.create(PROXY_FLEETS, fleet(ns, {}, "n" * 51))
    created = await kube.create(PROXY_FLEETS, fleet(ns, {}))
    with pytest.raises(Invalid, match="make a second ProxyFleet"):
        await kube.replace(PROXY_FLEETS, {**created, "spec": {**created["spec"], "mode": "db"}})
    await kube.replace(PROXY_FLEETS, {**created, "spec": {**created["spec"], "replicas": 5}})


async def test_a_status_is_written_once_per_change_and_read_back_whole(kube: KubeClient, ns: str) -> None:
    shop = Fleet(name="shop", namespace=ns, spec=FleetSpec(proxy_service="s"))
    proxy = Proxy(name="p-1", namespace=ns, ip="10.0.0.1")
    now = utc_now().replace(microsecond=0)
    outcome = Outcome(reason="Configured", message="fine", hint="reference/errors.md")
    good = ProxyStatus(
        phase=Phase.SERVING,
        loaded_revision=3,
        synced=True,
        traffic_ready=True,
        last_push=now,
        push_milliseconds=5,
        mtls=Mtls(subject="CN=x", expires=now),
        conditions=set_condition((), "TrafficReady", True, outcome, now),
    )
    writer = InstanceWriter(kube, shop)
    writer.note(proxy, good)
    await writer.flush()
    assert (await list_instances(kube, shop))["p-1"] == good
    bad = good.model_copy(update={"loaded_revision": None, "synced": False, "mtls": Mtls()})
    before = kube.requests
    writer.note(proxy, bad)
    writer.note(proxy, bad)
    await writer.flush()
    assert kube.requests - before == 1
    assert (await list_instances(kube, shop))["p-1"] == bad
    body = await kube.get(PROXY_INSTANCES, "p-1", ns)
    assert "loadedRevision" not in body["status"]


async def test_an_event_is_written_and_counted_up(kube: KubeClient, ns: str) -> None:
    created = await kube.create(PROXY_FLEETS, fleet(ns, {}))
    ref = ObjectRef(kind="ProxyFleet", namespace=ns, name="shop", uid=created["metadata"]["uid"])
    recorder = Recorder(kube)
    recorder.record(ref, "Onboarded", "p-1 carries traffic", "Normal")
    await recorder.flush()
    (event,) = await _events(kube, ns)
    assert (event["reason"], event["type"], event["count"]) == ("Onboarded", "Normal", 1)
    recorder.clock = lambda: utc_now().replace(year=utc_now().year + 1)
    recorder.record(ref, "Onboarded", "p-1 carries traffic", "Normal")
    await recorder.flush()
    (event,) = await _events(kube, ns)
    assert event["count"] == 2


async def _events(kube: KubeClient, namespace: str) -> list[Object]:
    found = await kube.list_all(EVENTS, namespace)
    return [event for event in found if event["involvedObject"]["kind"] == "ProxyFleet"]
