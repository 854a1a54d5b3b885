"""Random edit sequences: after every edit the incremental result has the bytes and problems of a full render."""

from __future__ import annotations

import random
from typing import Any

import pytest
from random_cluster import Cluster, kind_of

from konverge.translate import Settings, Translator, render

MODES = {
    "traditional": {},
    "expressions": {
        "ExpressionRoutes": True,
        "KongServiceFacade": True,
        "RewriteURIs": True,
        "EnterpriseEdition": True,
    },
    "combined": {"CombinedServicesFromDifferentHTTPRoutes": True, "KongServiceFacade": True, "DrainSupport": True},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(6))
def test_edits_give_the_bytes_of_a_full_render(mode: str, seed: int) -> None:
    print(f"seed {seed}, mode {mode}")
    rng = random.Random(seed)
    cluster = Cluster(rng)
    settings = Settings(features=MODES[mode], gateway_controller="konghq.com/kic-gateway-controller")
    translator = Translator(settings)
    for value in cluster.objects.values():
        translator.apply("ADDED", value)
    for step in range(60):
        for _ in range(rng.choice((1, 1, 1, 3))):
            event, value = cluster.edit()
            translator.apply(event, value)
        mine, full = translator.render(), render(cluster.objects.values(), settings)
        assert mine.content == full.content, f"step {step}: {event} {kind_of(value)}"
        assert mine.problems == full.problems, f"step {step}: {event} {kind_of(value)}"
        assert mine.document == full.document


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_arrival_does_not_matter(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    objects: list[Any] = list(Cluster(rng).objects.values())
    first = render(objects, Settings())
    for _ in range(5):
        rng.shuffle(objects)
        again = render(objects, Settings())
        assert again.content == first.content
        assert again.problems == first.problems


@pytest.mark.parametrize("seed", range(3))
def test_a_list_replaces_the_snapshot(seed: int) -> None:
    print(f"seed {seed}")
    rng = random.Random(seed)
    translator = Translator(Settings())
    translator.replace(Cluster(rng).objects.values())
    translator.render()
    other = list(Cluster(rng).objects.values())
    translator.replace(other)
    assert translator.render().content == render(other, Settings()).content
    translator.replace([])
    assert translator.render().document == {"_format_version": "3.0", "upstreams": [{"name": "kong"}]}
