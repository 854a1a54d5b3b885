"""Proxies are read from EndpointSlices: unready ones too, terminating ones not, and `serving` tells readiness."""

from __future__ import annotations

from typing import Any

from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.discovering import read_proxies

FLEET = Fleet(name="shop", namespace="ns", spec=FleetSpec(proxy_service="s"))


def piece(*endpoints: dict[str, Any], port: str = "kong-admin-tls") -> dict[str, Any]:
    return {"ports": [{"name": port, "port": 9444}], "endpoints": list(endpoints)}


def endpoint(name: str, **conditions: bool) -> dict[str, Any]:
    target = {"kind": "Pod", "name": name, "uid": f"uid-{name}"}
    return {"addresses": ["127.0.0.9"], "conditions": conditions, "targetRef": target, "nodeName": "n1"}


def test_serving_is_the_readiness_of_the_pod() -> None:
    slices = [piece(endpoint("b", ready=True, serving=False), endpoint("a", ready=True, serving=True))]
    found = read_proxies(FLEET, slices)
    assert [(p.name, p.ready) for p in found] == [("a", True), ("b", False)]
    assert found[0].admin_port == 9444
    assert found[0].server_name == "a.shop-gateway-admin.ns.svc"


def test_terminating_and_foreign_endpoints_are_left_out() -> None:
    foreign = endpoint("c")
    del foreign["targetRef"]
    slices = [piece(endpoint("a", ready=True, serving=True, terminating=True), foreign)]
    assert read_proxies(FLEET, slices) == []


def test_a_port_of_another_name_falls_back_to_the_usual_one() -> None:
    assert read_proxies(FLEET, [piece(endpoint("a"), port="other")])[0].admin_port == 8444


def test_a_pod_in_two_slices_is_one_proxy() -> None:
    assert len(read_proxies(FLEET, [piece(endpoint("a")), piece(endpoint("a"))])) == 1
