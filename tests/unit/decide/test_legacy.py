"""The legacy release is recognised by what it is, and refused with a reason where it is something else."""

from __future__ import annotations

from typing import Any

import pytest

from konverge.decide.legacy import find_release, refuse_unhealthy
from konverge.errors import CheckRefused, NotFound


def deployment(name: str = "shop-kong", release: str = "shop", **changes: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/instance": release, "app.kubernetes.io/name": "kong"}
    proxy = {"name": "proxy", "image": "kong:3.9", "env": [{"name": "KONG_DATABASE", "value": "off"}]}
    controller = {
        "name": "ingress-controller",
        "env": [
            {"name": "CONTROLLER_INGRESS_CLASS", "value": "edge"},
            {"name": "CONTROLLER_FEATURE_GATES", "value": "RewriteURIs=true, GatewayAlpha=false"},
        ],
    }
    body = {
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [controller, proxy]}},
        },
        "status": {"readyReplicas": 3},
    }
    body["spec"].update(changes)
    return body


def service(name: str = "shop-kong-proxy", kind: str = "LoadBalancer", target: Any = "proxy") -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {
            "type": kind,
            "clusterIP": "10.0.0.9",
            "selector": {"app.kubernetes.io/instance": "shop"},
            "ports": [{"port": 80, "targetPort": target}],
        },
    }


def test_the_release_is_described() -> None:
    found = find_release("shop", [deployment()], [service("other", "ClusterIP", 8100), service()])
    assert (found.deployment, found.replicas, found.controllers) == ("shop-kong", 3, 3)
    assert found.service == "shop-kong-proxy"
    assert found.ingress_class == "edge"
    assert found.features == {"RewriteURIs": True, "GatewayAlpha": False}


def test_the_load_balancer_wins_over_a_cluster_ip() -> None:
    found = find_release("shop", [deployment()], [service("a-inner", "ClusterIP", 8000), service("z-outer")])
    assert found.service == "z-outer"


def test_an_unknown_release_names_those_that_exist() -> None:
    with pytest.raises(NotFound, match="per-pod releases here: shop") as caught:
        find_release("nope", [deployment()], [service()])
    assert caught.value.reason == "ReleaseNotFound"


def test_a_split_release_is_not_per_pod() -> None:
    split = deployment()
    del split["spec"]["template"]["spec"]["containers"][0]
    with pytest.raises(NotFound, match="here: none"):
        find_release("shop", [split], [service()])


def test_a_database_is_refused() -> None:
    body = deployment()
    body["spec"]["template"]["spec"]["containers"][1]["env"] = [{"name": "KONG_DATABASE", "value": "postgres"}]
    with pytest.raises(CheckRefused, match="database 'postgres'"):
        find_release("shop", [body], [service()])


def test_no_traffic_service_is_refused() -> None:
    with pytest.raises(CheckRefused) as caught:
        find_release("shop", [deployment()], [service(target=8100)])
    assert caught.value.reason == "TrafficServiceNotFound"


def test_a_limping_release_is_refused() -> None:
    body = deployment()
    body["status"]["readyReplicas"] = 2
    with pytest.raises(CheckRefused, match="2 of 3 replicas"):
        refuse_unhealthy(find_release("shop", [body], [service()]))
