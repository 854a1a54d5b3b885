"""The way from the target of a command to its fleet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.model.target import Target
from konverge.operate.fleets import load_fleet


@asynccontextmanager
async def open_fleet(target: Target) -> AsyncIterator[tuple[KubeClient, Fleet]]:
    """Connect to the cluster of a target and read its fleet; NotFound where there is none of that name."""
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        yield kube, await load_fleet(kube, target.fleet, target.namespace)
