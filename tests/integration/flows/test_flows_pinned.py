"""config-sync while a revision is pinned: the sources are not asked until it is released."""

from __future__ import annotations

import pytest

from flows.config_sync import config_sync
from konverge.operate.fleets import load_fleet
from konverge.operate.rolling_back import pin_revision
from tests.integration.flows.test_flows_sync import TARGET, World

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.usefixtures("harness"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def routed(world: World) -> set[str]:
    return {fake.routes for fake in world.gateways.proxies.values()}


async def pin(world: World, number: int) -> None:
    await pin_revision(world.kube, await load_fleet(world.kube, "shop", "default"), number)


async def test_a_pinned_revision_stands_for_the_sources_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World(monkeypatch).open()
    await config_sync(target=TARGET)
    first, world.content = world.content, b"two"
    await config_sync(target=TARGET)
    await pin(world, 1)
    world.content = b"three"
    for _ in range(2):
        assert (await config_sync(target=TARGET))["revision"] == 1
    assert routed(world) == {first.decode()}
    await pin(world, 0)
    assert (await config_sync(target=TARGET))["revision"] == 3
    assert routed(world) == {"three"}
