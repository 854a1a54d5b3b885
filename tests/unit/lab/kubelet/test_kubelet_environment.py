from __future__ import annotations

import base64
from typing import Any

import pytest

from konverge.lab.kubelet.environment import ConfigError, Sources, build_environment, expand, quantity

SECRETS = {"s": {"type": "Opaque", "data": {"k": base64.b64encode(b"hidden").decode()}}}
MAPS = {"m": {"data": {"one": "1", "two": "2"}}}
SERVICES = [
    {
        "metadata": {"name": "kong-proxy", "namespace": "ns"},
        "spec": {
            "clusterIP": "127.9.16.2",
            "ports": [{"name": "kong-tls", "port": 443}, {"port": 53, "protocol": "UDP"}],
        },
    },
    {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
    {
        "metadata": {"name": "other", "namespace": "elsewhere"},
        "spec": {"clusterIP": "127.9.16.3", "ports": [{"port": 1}]},
    },
]


def sources(**spec: Any) -> Sources:
    metadata = {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"b": 'q"', "a": "1"},
        "annotations": {"x.y/z": "v"},
    }
    return Sources(
        pod={"metadata": metadata, "spec": {"nodeName": "n", "serviceAccountName": "sa", **spec}},
        pod_ip="127.9.64.2",
        host_ip="127.9.0.1",
        secret=SECRETS.get,
        config_map=MAPS.get,
        services=SERVICES,
        api_host="127.9.0.1",
        api_port="6443",
    )


def environment(*env: dict[str, Any], env_from: tuple[Any, ...] = (), **spec: Any) -> dict[str, str]:
    container = {"env": list(env), "envFrom": list(env_from), "resources": {"limits": {"cpu": "1500m"}}}
    return build_environment(container, sources(**spec))


def value(**origin: Any) -> dict[str, Any]:
    return {"name": "X", "valueFrom": origin}


def test_services_of_the_namespace_and_the_api_server_are_told() -> None:
    env = environment()
    assert env["KONG_PROXY_SERVICE_HOST"] == "127.9.16.2"
    assert env["KONG_PROXY_SERVICE_PORT_KONG_TLS"] == "443"
    assert env["KONG_PROXY_PORT"] == "tcp://127.9.16.2:443"
    assert env["KONG_PROXY_PORT_53_UDP_PROTO"] == "udp"
    assert (env["KUBERNETES_SERVICE_HOST"], env["KUBERNETES_SERVICE_PORT"]) == ("127.9.0.1", "6443")
    assert not [name for name in env if name.startswith(("HEADLESS", "OTHER"))]
    assert "KONG_PROXY_PORT" not in environment(enableServiceLinks=False)


def test_later_variables_see_earlier_ones_and_own_ones_beat_service_ones() -> None:
    env = environment(
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)-$$(A)-$(KONG_PROXY_SERVICE_HOST)"},
        {"name": "C", "value": "late"},
        {"name": "KONG_PROXY_PORT", "value": "mine"},
    )
    assert env["B"] == "1-$(C)-$(A)-127.9.16.2"
    assert env["KONG_PROXY_PORT"] == "mine"


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "hidden"),
        ({"configMapKeyRef": {"name": "m", "key": "one"}}, "1"),
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "127.9.64.2"),
        ({"fieldRef": {"fieldPath": "metadata.annotations['x.y/z']"}}, "v"),
        ({"fieldRef": {"fieldPath": "metadata.labels"}}, 'a="1"\nb="q\\""'),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "2"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}, "1500"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "4096"),
    ],
)
def test_values_from_elsewhere(origin: dict[str, Any], expected: str) -> None:
    assert environment(value(**origin))["X"] == expected


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "no"}}, "couldn't find key no in Secret ns/s"),
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"fieldRef": {"fieldPath": "spec.nope"}}, "unsupported fieldPath: spec.nope"),
    ],
)
def test_what_is_missing_is_named(origin: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        environment(value(**origin))


def test_optional_sources_may_be_missing() -> None:
    assert "X" not in environment(value(secretKeyRef={"name": "no", "key": "k", "optional": True}))
    assert "X" not in environment(value(configMapKeyRef={"name": "m", "key": "no", "optional": True}))
    env_from = ({"secretRef": {"name": "no", "optional": True}}, {"configMapRef": {"name": "m"}, "prefix": "P_"})
    assert environment(env_from=env_from)["P_two"] == "2"
    with pytest.raises(ConfigError, match='secret "no" not found'):
        environment(env_from=({"secretRef": {"name": "no"}},))


def test_expansion_leaves_what_it_does_not_know() -> None:
    assert expand("$(A) $(B) $$(A) $A $", {"A": "x"}) == "x $(B) $(A) $A $"


@pytest.mark.parametrize(
    ("text", "amount"), [("250m", 0.25), ("1", 1), ("64Mi", 67108864), ("1e3", 1000), ("2k", 2000)]
)
def test_quantities(text: str, amount: float) -> None:
    assert quantity(text) == amount


def test_a_quantity_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        quantity("1Zi")
