"""Who owes a proof is taken out of traffic, but never so many that nobody is left to carry it."""

from __future__ import annotations

import pytest
from fake_kube import FakeKube

from konverge.kube.resources import PODS, PROXY_FLEETS
from konverge.model.fleet import FleetSpec
from konverge.model.proxy import CONFIGURED_GATE, Proxy
from konverge.model.rotation import ProxyWork, RotationStep, StepReport
from konverge.operate.attesting import quarantine
from konverge.operate.fleets import parse_fleet


@pytest.mark.parametrize(
    ("ready", "owing", "out"),
    [
        ("a", "a", ""),
        ("ab", "ab", "a"),
        ("ab", "b", "b"),
        ("abc", "abc", "a"),
        ("abc", "bc", "b"),
        ("abcd", "bcd", "bc"),
        ("ab", "cd", "cd"),
        ("", "abcd", "abcd"),
    ],
)
async def test_of_the_ready_ones_at_most_half_is_taken_out(ready: str, owing: str, out: str) -> None:
    kube = FakeKube()
    fleet = parse_fleet(
        kube.put(PROXY_FLEETS, {"metadata": {"name": "shop"}, "spec": FleetSpec(proxy_service="s").to_json()})
    )
    proxies = [Proxy(name=name, namespace="default", ip="127.0.0.2", ready=name in ready) for name in "abcd"]
    for proxy in proxies:
        kube.put(PODS, {"metadata": {"name": proxy.name}, "status": {"conditions": []}})
    works = tuple(ProxyWork(proxy=name, owes=name in owing) for name in "abcd")
    await quarantine(kube, fleet, proxies, StepReport(step=RotationStep.RETIRE, message="", proxies=works))
    closed = {
        pod["metadata"]["name"]
        for pod in kube.all(PODS)
        for c in pod["status"]["conditions"]
        if (c["type"], c["status"], c["reason"]) == (CONFIGURED_GATE, "False", "IdentityOwed")
    }
    assert closed == set(out)
