"""Checks of Services, selectors and the Deployment of the proxies."""

from __future__ import annotations

from konverge.checks.legacy import read_release
from konverge.checks.registry import Answer, NotApplicable, Severity, Stage, check, failed, failed_if, passed
from konverge.checks.scene import Object, Scene
from konverge.model.fleet import Fleet
from konverge.model.proxy import CONFIGURED_GATE
from konverge.operate.discovering import ADMIN_PORT_NAMES

CATEGORY = "Services and selectors"
CONTROLLER_NAMES = frozenset({"ingress-controllers.konghq.com/kong"})


def read_fleet(scene: Scene) -> Fleet | None:
    """Return the fleet, or None where it does not exist; raises where it cannot be read."""
    return scene.fleet.get() if scene.fleet is not None else None


def require_fleet(scene: Scene) -> Fleet:
    """Return the fleet; NotApplicable where it does not exist."""
    fleet = read_fleet(scene)
    if fleet is None:
        raise NotApplicable("there is no such fleet yet")
    return fleet


def require_deployment(scene: Scene) -> Object:
    """Return the Deployment of the fleet's proxies; NotApplicable where Konverge does not deploy them."""
    deployment = scene.find("deployments", require_fleet(scene).deployment)
    if deployment is None:
        raise NotApplicable("the proxies are not deployed by Konverge")
    return deployment


@check(
    "fleet-valid",
    CATEGORY,
    Severity.ERROR,
    "The ProxyFleet can be used",
    fix="Correct the field that the message names: kubectl edit proxyfleet NAME.",
    stage=Stage.AFTER,
)
def fleet_valid(scene: Scene) -> Answer:
    """The object is there and every field of it is understood."""
    fleet = read_fleet(scene)
    return passed(f"{fleet.namespace}/{fleet.name}") if fleet else failed(f"there is no fleet {scene.fleet_name}")


@check(
    "fleet-paused",
    CATEGORY,
    Severity.WARNING,
    "The fleet is not paused or pinned",
    fix="Set spec.paused to false with kubectl edit proxyfleet NAME; a pin ends with konverge rollback --release.",
    stage=Stage.AFTER,
)
def fleet_paused(scene: Scene) -> Answer:
    """Changes of the sources reach the proxies."""
    fleet = require_fleet(scene)
    if fleet.spec.paused:
        return failed("spec.paused is true: nothing is pushed, onboarded or rotated")
    pinned = fleet.spec.pinned_revision
    return failed(f"revision {pinned} is pinned: changes of the sources are not pushed") if pinned else passed()


@check(
    "admin-service",
    CATEGORY,
    Severity.ERROR,
    "The proxies can be found before they are ready",
    fix="The admin Service must be headless, with publishNotReadyAddresses, and a port named kong-admin-tls.",
    stage=Stage.AFTER,
)
def admin_service(scene: Scene) -> Answer:
    """The admin Service is headless, publishes unready addresses and names its port."""
    fleet = require_fleet(scene)
    body = scene.find("services", fleet.admin_service)
    if body is None:
        return failed(f"there is no Service {fleet.admin_service}")
    spec, name = body["spec"], fleet.admin_service
    wrong = []
    if spec.get("clusterIP") != "None":
        wrong.append(f"Service {name} is not headless (clusterIP: None)")
    if not spec.get("publishNotReadyAddresses"):
        wrong.append(f"Service {name} does not publish unready addresses")
    if not any(port.get("name") in ADMIN_PORT_NAMES for port in spec.get("ports", ())):
        wrong.append(f"Service {name} has no port named {' or '.join(ADMIN_PORT_NAMES)}")
    return failed_if(wrong, name)


@check(
    "admin-selector",
    CATEGORY,
    Severity.ERROR,
    "The admin Service selects the proxies",
    fix="Its selector must match the labels of the proxies' pods.",
    stage=Stage.AFTER,
)
def admin_selector(scene: Scene) -> Answer:
    """The selector of the admin Service matches the labels of the Deployment's pods."""
    return _judge_selector(scene, require_fleet(scene).admin_service)


@check(
    "traffic-service",
    CATEGORY,
    Severity.ERROR,
    "The Service of the traffic selects the proxies",
    fix="Compare spec.selector of the Service with the labels of the pods; `konverge migrate` moves it.",
    stage=Stage.AFTER,
)
def traffic_service(scene: Scene) -> Answer:
    """The Service that the fleet names exists and selects its pods."""
    return _judge_selector(scene, require_fleet(scene).spec.proxy_service)


def _judge_selector(scene: Scene, name: str) -> Answer:
    body = scene.find("services", name)
    if body is None:
        return failed(f"there is no Service {name}")
    labels = require_deployment(scene)["spec"]["template"]["metadata"].get("labels") or {}
    selector = body["spec"].get("selector") or {}
    # A Service under migration selects by a label that pods get one by one.
    wrong = [f"{k}={v}" for k, v in selector.items() if labels.get(k) != v and not k.startswith("konverge.dev/")]
    return failed(f"Service {name} selects {', '.join(wrong)}, which no proxy carries") if wrong else passed(name)


@check(
    "traffic-endpoints",
    CATEGORY,
    Severity.ERROR,
    "The Service of the traffic has a ready endpoint",
    fix="konverge status FLEET says why proxies are not ready.",
    stage=Stage.AFTER,
)
def traffic_endpoints(scene: Scene) -> Answer:
    """At least one endpoint of the traffic's Service is ready."""
    fleet = require_fleet(scene)
    label, name = "kubernetes.io/service-name", fleet.spec.proxy_service
    slices = [s for s in scene.list("endpointslices") if (s["metadata"].get("labels") or {}).get(label) == name]
    ready = sum(
        1
        for piece in slices
        for endpoint in piece.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
    )
    return passed(f"{ready} ready") if ready else failed(f"Service {name} has no ready endpoint")


@check(
    "readiness-gate",
    CATEGORY,
    Severity.ERROR,
    "A proxy gets no traffic before its configuration is verified",
    fix=f"The pods' template must have the readiness gate {CONFIGURED_GATE}.",
    stage=Stage.AFTER,
)
def readiness_gate(scene: Scene) -> Answer:
    """The Deployment's pods have the readiness gate that onboarding opens."""
    fleet, deployment = require_fleet(scene), require_deployment(scene)
    gates = [g.get("conditionType") for g in deployment["spec"]["template"]["spec"].get("readinessGates") or ()]
    name = fleet.deployment
    return passed(name) if CONFIGURED_GATE in gates else failed(f"Deployment {name} has no such readiness gate")


@check(
    "rolling-update",
    CATEGORY,
    Severity.WARNING,
    "An update of the proxies takes none away before its successor is ready",
    fix="strategy.rollingUpdate: maxUnavailable 0, maxSurge 1 or more.",
    stage=Stage.AFTER,
)
def rolling_update(scene: Scene) -> Answer:
    """maxUnavailable is 0."""
    fleet, deployment = require_fleet(scene), require_deployment(scene)
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return failed(f"Deployment {fleet.deployment} recreates all pods at once")
    unavailable = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", "25%")
    text = f"maxUnavailable is {unavailable}"
    return passed(text) if str(unavailable) in ("0", "0%") else failed(text)


@check(
    "ingress-class",
    CATEGORY,
    Severity.WARNING,
    "The ingress class of the fleet exists",
    fix="Create an IngressClass of that name with controller ingress-controllers.konghq.com/kong.",
    stage=Stage.ALWAYS,
)
def ingress_class(scene: Scene) -> Answer:
    """There is an IngressClass of that name, and it is Kong's."""
    fleet = read_fleet(scene)
    release = read_release(scene)
    name = fleet.spec.ingress_class if fleet else release.ingress_class if release else "kong"
    body = scene.find("ingressclasses", name)
    if body is None:
        return failed(f"there is no IngressClass {name}: only objects with the annotation are rendered")
    controller = body["spec"].get("controller", "")
    known = controller in CONTROLLER_NAMES
    return passed(name) if known else failed(f"IngressClass {name} is of controller {controller!r}")
