"""What is created for a fleet holds the invariants: mutual TLS, no resumption, no traffic before configuration."""

from __future__ import annotations

from konverge.decide.objects import build_controller_objects, build_fleet_objects, proxy_environment
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import CONFIGURED_GATE

FLEET = Fleet(name="shop", namespace="gateways", spec=FleetSpec(proxy_service="kong-proxy", replicas=4))


def by_kind(kind: str) -> dict:
    return next(body for body in build_fleet_objects(FLEET) if body["kind"] == kind)


def test_proxies_carry_the_readiness_gate_and_spread() -> None:
    pod = by_kind("Deployment")["spec"]["template"]["spec"]
    assert pod["readinessGates"] == [{"conditionType": CONFIGURED_GATE}]
    assert pod["affinity"]["podAntiAffinity"]
    assert by_kind("Deployment")["spec"]["replicas"] == 4


def test_the_admin_service_finds_proxies_before_they_are_ready() -> None:
    spec = by_kind("Service")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True


def test_the_admin_api_asks_for_a_certificate_and_forgets_sessions() -> None:
    env = proxy_environment(FLEET)
    assert env["KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT"] == "on"
    assert env["KONG_NGINX_ADMIN_SSL_SESSION_TICKETS"] == "off"
    assert env["KONG_NGINX_ADMIN_SSL_SESSION_CACHE"] == "off"
    assert env["KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE"] == env["KONG_NGINX_ADMIN_CLIENT_BODY_BUFFER_SIZE"]
    assert "ssl" in env["KONG_ADMIN_LISTEN"]


def test_no_selector_carries_a_version() -> None:
    for body in [*build_fleet_objects(FLEET), *build_controller_objects(FLEET, "konverge/konverge:0.1.0")]:
        selector = body.get("spec", {}).get("selector", {})
        labels = selector.get("matchLabels", selector)
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)


def test_the_controller_may_not_write_sources() -> None:
    roles = [b for b in build_controller_objects(FLEET, "i") if b["kind"] == "ClusterRole"]
    rules = [rule for role in roles for rule in role["rules"] if rule["resources"] != ["events"]]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list", "watch"}
