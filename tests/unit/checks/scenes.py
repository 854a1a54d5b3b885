"""A scene in which nothing is wrong, and the objects that it is made of."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from konverge.checks.orchestration import FLOWS, ZOMBIES
from konverge.checks.rights import EXEC_RIGHTS, FLEET_RIGHTS, MIGRATION_RIGHTS, SOURCE_RIGHTS
from konverge.checks.scene import ApiServer, GatewayView, Orchestrator, Reading, Rendering, Scene
from konverge.decide.legacy import find_release
from konverge.decide.objects import build_admin_service, build_disruption_budget, build_proxy_deployment
from konverge.kong.reading import GatewayInfo
from konverge.kube.crds import build_crds
from konverge.kube.resources import SOURCES
from konverge.model.fleet import Fleet
from konverge.model.proxy import Phase, ProxyStatus
from konverge.model.revision import RevisionSpec
from konverge.model.rotation import CertificateView
from konverge.pki.handshake import Handshake, HandshakeReason

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SPEC = {
    "proxyService": "kong-proxy",
    "identity": {"store": {"kind": "sealed", "keySource": "environment", "keyName": "KEK"}},
}
FLEET = Fleet.model_validate(
    {
        "name": "shop",
        "namespace": "gateways",
        "spec": SPEC,
        "status": {"currentRevision": 4, "lastGoodRevision": 4, "currentHash": "h"},
    }
)
Object = dict[str, Any]


def named(name: str, **body: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "gateways"}, **body}


def node(name: str) -> Object:
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "spec": {}, "status": {"conditions": ready, "allocatable": {"pods": "110"}}}


def established() -> list[Object]:
    condition = [{"type": "Established", "status": "True"}]
    return [{**crd, "status": {"conditions": condition}} for crd in build_crds()]


def endpoint_slice(service: str, ready: bool = True, namespace: str = "gateways") -> Object:
    labels = {"kubernetes.io/service-name": service}
    metadata = {"name": f"{service}-abc", "namespace": namespace, "labels": labels}
    return {"metadata": metadata, "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]}


def legacy_objects() -> tuple[Object, Object]:
    labels = {"app.kubernetes.io/instance": "kong", "app": "kong"}
    containers = [
        {"name": "proxy", "image": "kong:3.9"},
        {
            "name": "ingress-controller",
            "image": "kong/kubernetes-ingress-controller:3.5",
            "env": [{"name": "CONTROLLER_FEATURE_GATES", "value": "FallbackConfiguration=true"}],
        },
    ]
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": containers, "terminationGracePeriodSeconds": 30},
    }
    deployment = {
        "metadata": {"name": "kong-kong", "namespace": "gateways", "labels": labels, "generation": 3},
        "spec": {"replicas": 3, "selector": {"matchLabels": labels}, "template": template},
        "status": {"readyReplicas": 3, "updatedReplicas": 3, "replicas": 3, "observedGeneration": 3},
    }
    ports = [{"name": "proxy", "port": 80, "targetPort": 8000}]
    service = named("kong-proxy", spec={"selector": dict(FLEET.labels), "ports": ports, "type": "LoadBalancer"})
    return deployment, service


def fleet_deployment() -> Object:
    body = build_proxy_deployment(FLEET)
    return {**body, "status": {"readyReplicas": 3}}


def hook(
    service: str, groups: tuple[str, ...] = ("apps",), seconds: int = 5, resource: str = "deployments"
) -> Object:
    client = {"service": {"namespace": "gateways", "name": service}}
    rules = [{"apiGroups": list(groups), "resources": [resource]}]
    hooks = [{"clientConfig": client, "rules": rules, "failurePolicy": "Fail", "timeoutSeconds": seconds}]
    return {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": "guard"}, "webhooks": hooks}


def certificate(role: str, *, days: float = 20, due: bool = False) -> CertificateView:
    expires = NOW + timedelta(days=days)
    return CertificateView(
        role=role,
        subject=f"CN={role}",
        issuer="CN=shop",
        serial="1",
        expires=expires,
        renew_at=expires - timedelta(days=10),
        due=due,
    )


def gateway(name: str, **changes: Any) -> GatewayView:
    info = GatewayInfo(
        version=changes.pop("version", "3.9.1"),
        node_id=name,
        hostname=name,
        database=changes.pop("database", "off"),
        router_flavor=changes.pop("router_flavor", "traditional"),
        workers=changes.pop("workers", 2),
    )
    reason = changes.pop("reason", HandshakeReason.ACCEPTED)
    shown = Handshake(reason, protocol=changes.pop("protocol", "TLSv1.3"), verified=True)
    return GatewayView(name, shown, info, **changes)


def objects() -> dict[str, Reading[list[Object]]]:
    legacy, traffic = legacy_objects()
    admin = {**build_admin_service(FLEET)}
    quota = named("room", status={"hard": {"pods": "50"}, "used": {"pods": "7"}})
    scaled = {"scaleTargetRef": {"name": FLEET.deployment}, "minReplicas": 3, "maxReplicas": 9}
    webhook = named("guard-service", spec={})
    values: dict[str, list[Object]] = {
        "customresourcedefinitions": established(),
        "namespaces": [{"metadata": {"name": "gateways"}}],
        "nodes": [node("a"), node("b")],
        "ingressclasses": [
            {"metadata": {"name": "kong"}, "spec": {"controller": "ingress-controllers.konghq.com/kong"}}
        ],
        "validatingwebhookconfigurations": [hook("guard-service")],
        "mutatingwebhookconfigurations": [],
        "deployments": [legacy, fleet_deployment()],
        "services": [traffic, admin, webhook],
        "endpointslices": [endpoint_slice("kong-proxy")],
        "poddisruptionbudgets": [{**build_disruption_budget(FLEET), "status": {"disruptionsAllowed": 1}}],
        "horizontalpodautoscalers": [named("shop", spec=scaled, status={"currentReplicas": 3})],
        "resourcequotas": [quota],
        "pods/all": [{"spec": {"nodeName": "a"}, "status": {"phase": "Running"}}],
        "endpointslices/all": [endpoint_slice("guard-service"), endpoint_slice("kong-proxy")],
    }
    return {name: Reading(copy.deepcopy(value)) for name, value in values.items()}


def healthy() -> Scene:
    """A scene in which every check passes or does not apply."""
    legacy, traffic = legacy_objects()
    # As it is before the migration: the Service selects the legacy pods.
    before = {**traffic, "spec": {**traffic["spec"], "selector": {"app": "kong"}}}
    status = {
        name: ProxyStatus(pod=name, node=where, phase=Phase.SERVING, synced=True, traffic_ready=True)
        for name, where in (("gw-1", "a"), ("gw-2", "b"))
    }
    rights = dict.fromkeys((*SOURCE_RIGHTS, *FLEET_RIGHTS, *EXEC_RIGHTS, *MIGRATION_RIGHTS), True)
    return Scene(
        now=NOW,
        namespace="gateways",
        fleet_name="shop",
        release_name="kong",
        client_version="3.8.9",
        server=Reading(ApiServer("v1.36.2", 0.01, 0.0)),
        rights=Reading(rights),
        kinds=Reading(frozenset(f"{r.plural}.{r.group}/{r.version}".replace("./", "/") for r in SOURCES)),
        objects=objects(),
        fleet=Reading(FLEET),
        instances=Reading(status),
        revisions=Reading([RevisionSpec(fleet="shop", number=4, hash="h", size=10)]),
        certificates=Reading([certificate("authority", days=300), certificate("controller"), certificate("proxies")]),
        gateways=Reading([gateway("gw-1", skew_seconds=0.0), gateway("gw-2")]),
        rendering=Reading(Rendering(size=1_000_000, routes=70, problems=(), shadows=())),
        release=Reading(find_release("kong", [legacy], [before])),
        orchestrator=Reading(
            Orchestrator(
                url="http://127.0.0.1:4200/api",
                version="3.8.11",
                skew_seconds=0.0,
                pool=True,
                workers_online=1,
                deployments=frozenset(f"{flow}/fleet" for flow in FLOWS),
                scheduled=frozenset({"cert-rotation/fleet"}),
                automations=frozenset({ZOMBIES}),
            )
        ),
    )


def with_objects(scene: Scene, plural: str, *bodies: Object) -> Scene:
    return replace(scene, objects={**scene.objects, plural: Reading(list(bodies))})


def edit(scene: Scene, plural: str, name: str, path: str, value: Any) -> Scene:
    """Return the scene with one field of one object set; a value of None deletes it."""
    bodies = copy.deepcopy(scene.list(plural))
    target: Any = next(body for body in bodies if body["metadata"]["name"] == name)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        target = target[part]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return with_objects(scene, plural, *bodies)
