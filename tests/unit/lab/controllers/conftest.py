import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from fake_cluster import FakeCluster

from konverge.lab.controllers.deployments import Deployments
from konverge.lab.controllers.disruptions import DisruptionBudgets
from konverge.lab.controllers.endpointslices import EndpointSlices
from konverge.lab.controllers.loadbalancers import LoadBalancers
from konverge.lab.controllers.reconciling import World, running
from konverge.lab.controllers.replicasets import ReplicaSets

Settle = Callable[[], Awaitable[None]]


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    """A cluster with every controller of the lab running."""
    fake = FakeCluster()
    world = World(fake)  # type: ignore[arg-type]
    controllers = [kind(world) for kind in (Deployments, ReplicaSets, EndpointSlices, DisruptionBudgets)]
    controllers.append(LoadBalancers(world, "127.20.8.0/24"))
    async with running(world, controllers):
        yield fake


@pytest.fixture
def settle(cluster: FakeCluster) -> Settle:
    """Wait until the controllers write no more."""

    async def settle() -> None:
        quiet, seen = 0, -1
        while quiet < 30:
            await asyncio.sleep(0)
            quiet = quiet + 1 if cluster.latest == seen else 0
            seen = cluster.latest

    return settle
