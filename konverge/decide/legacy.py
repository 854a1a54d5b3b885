"""Recognises a per-pod release of Kong's chart and says why it can or cannot be migrated; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from konverge.errors import CheckRefused, NotFound

CONTROLLER_CONTAINER = "ingress-controller"
PROXY_CONTAINER = "proxy"
ADMIN_URL_PORT = 8444
"""Port of the Admin API on the pod's loopback (chart ``kong`` 3.x, ``env.admin_listen``)."""


@dataclass(frozen=True, slots=True)
class LegacyRelease:
    """A release in which every proxy pod carries its own ingress controller."""

    name: str
    namespace: str
    deployment: str
    replicas: int
    ready: int
    selector: Mapping[str, str]
    service: str
    service_selector: Mapping[str, str]
    ingress_class: str
    image: str
    router_flavor: str
    features: Mapping[str, bool] = field(default_factory=dict)
    controllers: int = 0


def find_release(
    name: str,
    deployments: Iterable[dict[str, Any]],
    services: Iterable[dict[str, Any]],
    service: str = "",
) -> LegacyRelease:
    """Return the release of that name. ``service`` names the Service of its traffic where that is known.

    Once the traffic has moved, the Service selects other pods and can be found by its name only.

    Raises NotFound with the names that exist, CheckRefused where it is not the legacy topology.
    """
    per_pod = [d for d in deployments if _container(d, CONTROLLER_CONTAINER) and _container(d, PROXY_CONTAINER)]
    mine = [d for d in per_pod if _instance(d) == name]
    if not mine:
        known = ", ".join(sorted({_instance(d) for d in per_pod})) or "none"
        raise NotFound(
            f"No Deployment of release {name!r} with containers {PROXY_CONTAINER!r} and {CONTROLLER_CONTAINER!r};"
            f" per-pod releases here: {known}",
            reason="ReleaseNotFound",
            hint="reference/errors.md#release-not-found",
        )
    if len(mine) > 1:
        names = ", ".join(sorted(d["metadata"]["name"] for d in mine))
        raise CheckRefused(
            f"Release {name!r} has several per-pod Deployments ({names}); name one with --deployment",
            reason="ReleaseAmbiguous",
        )
    return _describe(name, mine[0], list(services), service)


def _describe(name: str, deployment: dict[str, Any], services: list[dict[str, Any]], known: str) -> LegacyRelease:
    labels = deployment["spec"]["template"]["metadata"].get("labels", {})
    service = _named_service(services, known) if known else find_traffic_service(services, labels)
    controller = _environment(_container(deployment, CONTROLLER_CONTAINER) or {})
    proxy_container = _container(deployment, PROXY_CONTAINER) or {}
    proxy = _environment(proxy_container)
    _refuse_database(name, proxy)
    replicas = int(deployment["spec"].get("replicas", 1))
    return LegacyRelease(
        name=name,
        namespace=deployment["metadata"]["namespace"],
        deployment=deployment["metadata"]["name"],
        replicas=replicas,
        ready=int(deployment.get("status", {}).get("readyReplicas", 0)),
        selector=deployment["spec"]["selector"].get("matchLabels", {}),
        service=service["metadata"]["name"],
        service_selector=service["spec"]["selector"],
        ingress_class=controller.get("CONTROLLER_INGRESS_CLASS", "kong"),
        image=proxy_container.get("image", ""),
        router_flavor=proxy.get("KONG_ROUTER_FLAVOR", "traditional_compatible"),
        features=_features(controller.get("CONTROLLER_FEATURE_GATES", "")),
        controllers=replicas,
    )


def find_traffic_service(services: Iterable[dict[str, Any]], labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the Service that carries the traffic of pods with these labels: a LoadBalancer or NodePort first."""
    rank = {"LoadBalancer": 0, "NodePort": 1}
    matching = [
        s
        for s in services
        if s["spec"].get("selector")
        and s["spec"]["selector"].items() <= dict(labels).items()
        and s["spec"].get("clusterIP") != "None"
        and any(port.get("targetPort") in (8000, 8443, "proxy", "proxy-tls") for port in s["spec"].get("ports", ()))
    ]
    if not matching:
        raise CheckRefused(
            "No Service selects the proxies of the release on their proxy port (8000, 8443, proxy or proxy-tls)",
            reason="TrafficServiceNotFound",
            hint="reference/errors.md#traffic-service-not-found",
        )
    return min(matching, key=lambda s: (rank.get(s["spec"].get("type", ""), 2), s["metadata"]["name"]))


def _named_service(services: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    found = next((s for s in services if s["metadata"]["name"] == name), None)
    if found is None:
        raise CheckRefused(
            f"There is no Service {name} in the namespace of the release",
            reason="TrafficServiceNotFound",
            hint="reference/errors.md#traffic-service-not-found",
        )
    return found


def refuse_unhealthy(release: LegacyRelease) -> None:
    """Raise CheckRefused where the release is not whole: a migration must not start on a limping one."""
    if release.replicas < 1 or release.ready < release.replicas:
        raise CheckRefused(
            f"Deployment {release.namespace}/{release.deployment} has {release.ready} of {release.replicas}"
            " replicas ready; migrate when all are",
            reason="LegacyNotReady",
            hint="reference/errors.md#legacy-not-ready",
        )


def _refuse_database(name: str, proxy: Mapping[str, str]) -> None:
    if proxy.get("KONG_DATABASE", "off") != "off":
        raise CheckRefused(
            f"Release {name!r} runs with database {proxy['KONG_DATABASE']!r}; this migration is for DB-less proxies",
            reason="DatabaseMode",
            hint="reference/errors.md#database-mode",
        )


def _container(deployment: dict[str, Any], name: str) -> dict[str, Any] | None:
    containers = deployment["spec"]["template"]["spec"].get("containers", ())
    return next((c for c in containers if c.get("name") == name), None)


def _instance(deployment: dict[str, Any]) -> str:
    labels = deployment["metadata"].get("labels") or {}
    return str(labels.get("app.kubernetes.io/instance") or deployment["metadata"]["name"])


def _environment(container: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: str(e.get("value", "")) for e in container.get("env", ())}


def _features(gates: str) -> dict[str, bool]:
    pairs = (gate.split("=", 1) for gate in gates.split(",") if "=" in gate)
    return {name.strip(): value.strip().lower() == "true" for name, value in pairs}
