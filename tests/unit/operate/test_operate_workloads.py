"""Whose a Deployment is: what somebody else declares is not applied over."""

from __future__ import annotations

from typing import Any, cast

import pytest
from fake_kube import FakeKube

from konverge.decide.objects import build_controller_objects
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.workloads import is_managed_elsewhere

FLEET = Fleet(name="shop", namespace="kong", spec=FleetSpec(proxy_service="web"))


async def ask(kube: Any) -> bool:
    return await is_managed_elsewhere(cast("KubeClient", kube), FLEET.controller, FLEET.namespace)


@pytest.mark.parametrize(
    ("labels", "elsewhere"),
    [
        ({"app.kubernetes.io/managed-by": "Helm"}, True),
        ({"app.kubernetes.io/managed-by": "konverge"}, False),
        ({}, False),
    ],
)
async def test_the_label_says_who_declares_it(labels: dict[str, str], elsewhere: bool) -> None:
    kube = FakeKube()
    metadata = {"name": FLEET.controller, "namespace": FLEET.namespace, "labels": labels}
    await kube.create(DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata})
    assert await ask(kube) is elsewhere


async def test_what_is_not_there_is_ours_to_make() -> None:
    assert await ask(FakeKube()) is False


async def test_our_own_objects_are_ours() -> None:
    kube = FakeKube()
    await kube.create(DEPLOYMENTS, build_controller_objects(FLEET, "konverge/konverge:1")[-1])
    assert await ask(kube) is False
