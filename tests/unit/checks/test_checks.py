"""Each check passes where nothing is wrong, and is shown to fail where what it looks for is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from konverge.checks.all import MODULES, select_checks
from konverge.checks.registry import CHECKS, Severity, State, run_check, run_checks
from konverge.checks.scene import ApiServer, Reading, Scene
from konverge.cli.checking import exit_code
from konverge.errors import Forbidden, NotFound
from konverge.model.proxy import ProxyStatus
from konverge.pki.handshake import HandshakeReason
from tests.unit.checks.scenes import (
    FLEET,
    certificate,
    edit,
    endpoint_slice,
    gateway,
    healthy,
    hook,
    named,
    with_objects,
)

Change = Callable[[Scene], Scene]
GATEWAY, ADMIN = FLEET.deployment, FLEET.admin_service


def server(**changes: Any) -> Change:
    return lambda s: replace(s, server=Reading(replace(s.server.get(), **changes)))


def without_right(verb: str, resource: str, subresource: str = "") -> Change:
    def change(scene: Scene) -> Scene:
        rights = dict(scene.rights.get())
        hit = [r for r in rights if (r.verb, r.resource, r.subresource) == (verb, resource, subresource)]
        assert hit
        return replace(scene, rights=Reading({**rights, **dict.fromkeys(hit, False)}))

    return change


def orchestrator(**changes: Any) -> Change:
    def change(scene: Scene) -> Scene:
        assert scene.orchestrator is not None
        return replace(scene, orchestrator=Reading(replace(scene.orchestrator.get(), **changes)))

    return change


def release(**changes: Any) -> Change:
    def change(scene: Scene) -> Scene:
        assert scene.release is not None
        return replace(scene, release=Reading(replace(scene.release.get(), **changes)))

    return change


def fleet(**changes: Any) -> Change:
    return lambda s: replace(s, fleet=Reading(FLEET.model_copy(update={"spec": FLEET.spec.replace(**changes)})))


def rendering(**changes: Any) -> Change:
    return lambda s: replace(s, rendering=Reading(replace(s.rendering.get(), **changes)))


def objects(plural: str, *bodies: dict[str, Any]) -> Change:
    return lambda s: with_objects(s, plural, *bodies)


def field(plural: str, name: str, path: str, value: Any) -> Change:
    return lambda s: edit(s, plural, name, path, value)


def setting(name: str, value: str) -> Change:
    def change(scene: Scene) -> Scene:
        body = scene.find("deployments", GATEWAY)
        assert body is not None
        entries = body["spec"]["template"]["spec"]["containers"][0]["env"]
        fresh = [e for e in entries if e["name"] != name] + [{"name": name, "value": value}]
        return edit(scene, "deployments", GATEWAY, "spec.template.spec.containers.0.env", fresh)

    return change


def gateways(*views: Any) -> Change:
    return lambda s: replace(s, gateways=Reading(list(views)))


def certificates(*views: Any) -> Change:
    return lambda s: replace(s, certificates=Reading(list(views)))


def status(**changes: Any) -> Change:
    return lambda s: replace(s, instances=Reading({n: ProxyStatus(pod=n, **changes) for n in ("gw-1", "gw-2")}))


def unread(part: str) -> Change:
    return lambda s: replace(s, **{part: Reading(failure=Forbidden("not allowed"))})


WRONG: list[tuple[str, Change, str]] = [
    ("api-reachable", unread("server"), "not allowed"),
    ("api-version", server(version="v1.24.3"), "older than 1.27"),
    ("api-latency", server(seconds=2.5), "2500 ms"),
    ("api-clock", server(skew_seconds=-400.0), "400 s behind"),
    ("namespace-exists", objects("namespaces"), "no namespace gateways"),
    ("rbac-sources", without_right("watch", "kongplugins"), "watch kongplugins.configuration.konghq.com"),
    ("rbac-fleet", without_right("patch", "pods", "status"), "patch pods/status"),
    ("rbac-exec", without_right("create", "pods", "exec"), "create pods/exec"),
    ("rbac-migration", without_right("get", "pods", "portforward"), "get pods/portforward"),
    ("crds-installed", objects("customresourcedefinitions"), "proxyfleets.konverge.dev is missing"),
    (
        "crds-current",
        field(
            "customresourcedefinitions",
            "proxyfleets.konverge.dev",
            "spec.versions.0.schema.openAPIV3Schema.properties.spec.properties.pinnedRevision",
            None,
        ),
        "does not know spec.pinnedRevision",
    ),
    (
        "crds-established",
        field("customresourcedefinitions", "proxyfleets.konverge.dev", "status.conditions", []),
        "proxyfleets.konverge.dev is not established",
    ),
    ("crds-kong", lambda s: replace(s, kinds=Reading(frozenset({"pods/v1"}))), "nothing of configuration.konghq.com"),
    (
        "crds-gateway",
        lambda s: replace(s, kinds=Reading(frozenset({"httproutes.gateway.networking.k8s.io/v1"}))),
        "GRPCRoute",
    ),
    ("prefect-reachable", unread("orchestrator"), "not allowed"),
    ("prefect-version", orchestrator(version="3.6.0"), "server 3.6.0, here 3.8.9"),
    ("prefect-clock", orchestrator(skew_seconds=200.0), "200 s ahead"),
    ("prefect-pool", orchestrator(pool=False), "no work pool"),
    ("prefect-worker", orchestrator(workers_online=0), "no worker"),
    ("prefect-deployments", orchestrator(deployments=frozenset()), "config-sync is not deployed"),
    ("prefect-schedule", orchestrator(scheduled=frozenset()), "no deployment of cert-rotation"),
    ("prefect-zombies", orchestrator(automations=frozenset()), "no automation"),
    (
        "legacy-found",
        lambda s: replace(s, release=Reading(failure=NotFound("No Deployment of release 'kong'"))),
        "No Deployment",
    ),
    ("legacy-ready", release(ready=2), "2 of 3 ready"),
    ("legacy-settled", field("deployments", "kong-kong", "status.updatedReplicas", 1), "1 of 3 pods"),
    ("legacy-settled", field("deployments", "kong-kong", "status.observedGeneration", 2), "of the newest template"),
    (
        "legacy-controller",
        field("deployments", "kong-kong", "spec.template.spec.containers.1.image", "kong/kic:0.9"),
        "not a version",
    ),
    (
        "legacy-grace",
        field("deployments", "kong-kong", "spec.template.spec.terminationGracePeriodSeconds", 2),
        "shorter than",
    ),
    (
        "legacy-autoscaler",
        objects(
            "horizontalpodautoscalers", named("old", spec={"scaleTargetRef": {"name": "kong-kong"}, "maxReplicas": 5})
        ),
        "between 1 and 5",
    ),
    ("legacy-features", release(features={"Sorcery": True}), "Sorcery"),
    ("fleet-valid", lambda s: replace(s, fleet=None), "no fleet shop"),
    ("fleet-paused", fleet(paused=True), "spec.paused"),
    ("fleet-paused", fleet(pinned_revision=3), "revision 3 is pinned"),
    ("admin-service", field("services", ADMIN, "spec.publishNotReadyAddresses", False), "unready addresses"),
    ("admin-service", field("services", ADMIN, "spec.clusterIP", "10.0.0.9"), "not headless"),
    ("admin-selector", field("services", ADMIN, "spec.selector", {"app": "other"}), "app=other"),
    ("traffic-service", field("services", "kong-proxy", "spec.selector", {"app": "kong"}), "app=kong"),
    ("traffic-endpoints", objects("endpointslices", endpoint_slice("kong-proxy", ready=False)), "no ready endpoint"),
    ("readiness-gate", field("deployments", GATEWAY, "spec.template.spec.readinessGates", []), "no such readiness"),
    ("rolling-update", field("deployments", GATEWAY, "spec.strategy", {"type": "Recreate"}), "all pods at once"),
    ("rolling-update", field("deployments", GATEWAY, "spec.strategy", {}), "maxUnavailable is 25%"),
    ("ingress-class", objects("ingressclasses"), "no IngressClass kong"),
    ("identity-stored", unread("certificates"), "not allowed"),
    ("certificates-valid", certificates(certificate("controller", days=1)), "controller expires"),
    ("certificates-renewed", certificates(certificate("proxies", due=True)), "proxies since"),
    ("rotation-finished", certificates(certificate("authority"), certificate("next authority")), "two authorities"),
    ("proxies-handshake", gateways(gateway("gw-1", reason=HandshakeReason.CLIENT_REFUSED)), "gw-1: ClientRefused"),
    ("tls-version", gateways(gateway("gw-1", protocol="TLSv1.2")), "gw-1: TLSv1.2"),
    ("session-resumption", setting("KONG_NGINX_ADMIN_SSL_SESSION_CACHE", "shared:SSL:10m"), "CACHE is not off"),
    ("client-verification", setting("KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT", "optional"), "is not on"),
    ("client-verification", setting("KONG_ADMIN_LISTEN", "0.0.0.0:8001"), "without ssl"),
    ("key-store", lambda s: fleet(identity={})(s), "plain Secrets"),
    ("proxies-clock", gateways(gateway("gw-9", skew_seconds=300.0)), "gw-9 is 300 s ahead"),
    ("nodes-ready", field("nodes", "b", "spec.unschedulable", True), "1 of 2 nodes"),
    (
        "room-for-pods",
        lambda s: edit(
            edit(s, "nodes", "a", "status.allocatable.pods", "3"), "nodes", "b", "status.allocatable.pods", "1"
        ),
        "4 pods to come, room for 3",
    ),
    ("room-in-quota", field("resourcequotas", "room", "status.used.pods", "47"), "leaves 3 pods, 4 are to come"),
    ("disruption-budget", objects("poddisruptionbudgets"), "no PodDisruptionBudget"),
    ("disruption-budget", field("poddisruptionbudgets", GATEWAY, "status.disruptionsAllowed", 0), "lets no pod go"),
    ("autoscaler", field("horizontalpodautoscalers", "shop", "status.currentReplicas", 9), "maximum of 9"),
    ("spread", status(node="a"), "all 2 proxies run on a"),
    (
        "proxy-storage",
        field("deployments", GATEWAY, "spec.template.spec.volumes.0.emptyDir.sizeLimit", "256Mi"),
        "limited to 256Mi",
    ),
    ("webhooks-answered", objects("validatingwebhookconfigurations", hook("nobody")), "nobody answers at Service"),
    (
        "webhooks-legacy",
        objects(
            "validatingwebhookconfigurations",
            hook("kong-validation", groups=("configuration.konghq.com",), resource="kongplugins"),
        ),
        "served by Service kong-validation",
    ),
    (
        "webhooks-quick",
        objects("validatingwebhookconfigurations", hook("guard-service", seconds=30)),
        "may take 30 s",
    ),
    ("kong-version", gateways(gateway("gw-1", version="2.8.4")), "gw-1 runs 2.8.4"),
    ("kong-one-version", gateways(gateway("gw-1", version="3.8.0"), gateway("gw-2")), "3.8.0, 3.9.1"),
    ("kong-mode", gateways(gateway("gw-1", database="postgres")), "postgres"),
    ("kong-router", gateways(gateway("gw-1", router_flavor="expressions")), "router expressions"),
    ("kong-body-limit", setting("KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE", "900k"), "configuration of 0.95 MiB"),
    ("kong-body-reserve", setting("KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE", "20m"), "the two limits differ"),
    ("kong-workers", gateways(gateway("gw-1", workers=1)), "gw-1 has one worker"),
    ("sources-render", rendering(problems=("a: x", "b: y", "c: z", "d: w")), "and 1 more"),
    ("marker-visible", rendering(shadows=("key-auth",)), "key-auth"),
    ("proxies-current", status(reason="Busy"), "gw-1: Busy"),
    ("revision-good", lambda s: replace(s, revisions=Reading([])), "not stored"),
]


def test_nothing_is_wrong_in_a_healthy_scene() -> None:
    results = run_checks(CHECKS.values(), healthy())
    assert {r.id: r.message for r in results if r.state in (State.FAILED, State.UNKNOWN)} == {}
    assert exit_code(results, strict=True) == 0
    assert sum(r.state is State.PASSED for r in results) == len(CHECKS)


@pytest.mark.parametrize(("name", "change", "words"), WRONG, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)])
def test_what_is_wrong_is_found_and_named(name: str, change: Change, words: str) -> None:
    result = run_check(CHECKS[name], change(healthy()))
    assert result.state in (State.FAILED, State.UNKNOWN)
    assert words in result.message
    assert result.fix
    assert result.hint == f"reference/checks.md#{name}"
    assert result.refuses == (result.severity is Severity.ERROR)


def test_every_check_has_been_seen_to_fail() -> None:
    assert {name for name, _, _ in WRONG} == set(CHECKS)


def test_there_are_forty_checks_and_more_in_every_stage() -> None:
    assert len(CHECKS) >= 40
    for before in (True, False):
        categories = [record.category for record in select_checks(before=before)]
        assert categories == sorted(categories, key=[m.CATEGORY for m in MODULES].index)


def test_what_could_not_be_read_is_never_a_pass() -> None:
    empty = Scene(now=healthy().now, namespace="gateways", fleet_name="shop")
    results = run_checks(CHECKS.values(), empty)
    assert {r.id for r in results if r.state is State.PASSED} == set()
    assert exit_code(results) == 3


def test_a_cluster_without_fleet_and_release_skips_what_does_not_apply() -> None:
    scene = replace(healthy(), fleet=None, release=None, orchestrator=None)
    wrong = {r.id for r in run_checks(CHECKS.values(), scene) if r.state in (State.FAILED, State.UNKNOWN)}
    assert wrong == {"fleet-valid"}


def test_the_exit_code_tells_errors_from_warnings() -> None:
    slow = replace(healthy(), server=Reading(ApiServer("v1.36.2", 3.0)))
    results = run_checks(CHECKS.values(), slow)
    assert exit_code(results) == 0
    assert exit_code(results, strict=True) == 2
