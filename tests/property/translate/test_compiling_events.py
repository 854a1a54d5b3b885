"""A revision compiled from events has the bytes of one compiled from the whole; idle changes cost nothing."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from random_cluster import Cluster, kind_of

from konverge.kong.marker import add_marker
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.compiling import Compiler
from konverge.operate.connecting import probe_token
from konverge.operate.rendering import compile_revision

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def fleet(**spec: Any) -> Fleet:
    return Fleet(name="shop", namespace="ns", uid="0123456789", spec=FleetSpec(proxy_service="s", **spec))


def slices(service: str, version: int) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-1",
            "namespace": "ns",
            "resourceVersion": str(version),
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": bool(version % 2)}}],
        "ports": [{"port": 8444}],
    }


@pytest.mark.parametrize("flavor", ["traditional", "expressions"])
@pytest.mark.parametrize("seed", range(4))
async def test_events_give_the_bytes_of_a_whole_compilation(flavor: str, seed: int) -> None:
    print(f"seed {seed}, flavor {flavor}")
    rng = random.Random(seed)
    cluster = Cluster(rng)
    shop = fleet(router_flavor=flavor)
    compiler = Compiler(lambda: NOW)
    before = (await compiler.compile(shop, cluster.objects.values)).revision
    for step in range(40):
        for _ in range(rng.choice((0, 1, 1, 3, 70))):
            event, value = cluster.edit()
            compiler.take(event, value)
        made = await compiler.compile(shop, cluster.objects.values)
        whole, rendered = compile_revision(shop, cluster.objects.values(), lambda: NOW)
        assert made.revision.content == whole.content, f"step {step}: {event} {kind_of(value)}"
        assert made.revision == whole
        assert made.problems == rendered.problems
        assert made.changed == (before.content != whole.content)
        marked = add_marker(
            rendered.document, fleet="shop", revision=rendered.hash, token=probe_token(shop), flavor=flavor
        )
        assert whole.content == orjson.dumps(marked, option=orjson.OPT_SORT_KEYS)
        before = whole


async def test_what_no_rule_reads_is_not_translated() -> None:
    compiler, cluster = Compiler(lambda: NOW), Cluster(random.Random(1))
    # What custom entities read is not known, so with them everything counts.
    objects = [body for body in cluster.objects.values() if body["kind"] != "KongCustomEntity"]
    first = await compiler.compile(fleet(), lambda: objects)
    assert first.changed
    rendered = compiler.rendered
    for version in range(1, 9):
        compiler.take("MODIFIED", slices("shop-gateway-admin", version))
        made = await compiler.compile(fleet(), lambda: objects)
        assert not made.changed
        assert made.revision is first.revision
    assert compiler.rendered == rendered


async def test_other_terms_start_from_the_whole() -> None:
    compiler, cluster = Compiler(lambda: NOW), Cluster(random.Random(2))
    await compiler.compile(fleet(), cluster.objects.values)
    made = await compiler.compile(fleet(ingress_class="other"), cluster.objects.values)
    assert made.changed
    whole, _ = compile_revision(fleet(ingress_class="other"), cluster.objects.values(), lambda: NOW)
    assert made.revision.content == whole.content


async def test_after_a_failure_half_way_it_starts_from_the_whole() -> None:
    compiler, cluster = Compiler(lambda: NOW), Cluster(random.Random(3))
    await compiler.compile(fleet(), cluster.objects.values)
    assert compiler._made is not None
    compiler._made.translator.render = None  # type: ignore[method-assign,assignment]
    while True:
        event, value = cluster.edit()
        compiler.take(event, value)
        try:
            await compiler.compile(fleet(), cluster.objects.values)
        except TypeError:
            break
    made = await compiler.compile(fleet(), cluster.objects.values)
    whole, _ = compile_revision(fleet(), cluster.objects.values(), lambda: NOW)
    assert made.revision.content == whole.content
