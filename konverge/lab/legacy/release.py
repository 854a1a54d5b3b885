"""The legacy topology as the Helm chart "kong" renders it: every proxy pod carries its own controller.

Names, labels, ports, probes, environment and volumes follow the chart's default values; the release Secret is
what helm itself would have stored, so that ``helm list`` and the migration's detection read the same facts.
Lab-only differences: the init container runs the image ``lab/host`` and there is no autoscaler.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from konverge.kube.resources import Object
from konverge.lab.legacy.certificates import KeyPair, create_authority, issue_server
from konverge.lab.legacy.storing import Chart, release_secret
from konverge.lab.legacy.templates import dump, fill

CHART_VERSION = "3.4.1"
KONG_VERSION = "3.9"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"


@dataclass(frozen=True, slots=True)
class LegacySettings:
    """What a release differs in from the chart's defaults.

    ``controller_env`` and ``proxy_env`` are laid over the chart's environment and recorded as the release's
    values (``ingressController.env``, ``env``). ``init_image`` is None to leave the init container out.
    """

    proxy_image: str = f"kong:{KONG_VERSION}"
    controller_image: str = "kong/kubernetes-ingress-controller:3.5"
    init_image: str | None = "lab/host:1"
    controller_env: dict[str, str] = field(default_factory=dict)
    proxy_env: dict[str, str] = field(default_factory=dict)
    deployed_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def full_name(release: str) -> str:
    """Return the name that the chart gives its objects: the release, with "-kong" unless it contains it."""
    return release if "kong" in release else f"{release}-kong"


def selector_labels(release: str) -> dict[str, str]:
    """Return the three labels that the Deployment and the proxy Service select by."""
    return {COMPONENT: "app", INSTANCE: release, NAME: "kong"}


def meta_labels(release: str) -> dict[str, str]:
    """Return the labels on every object; chart and application version are among them."""
    return {
        NAME: "kong",
        "helm.sh/chart": f"kong-{CHART_VERSION}",
        INSTANCE: release,
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/version": KONG_VERSION,
    }


def legacy_release(
    name: str, namespace: str, replicas: int = 1, settings: LegacySettings | None = None
) -> list[Object]:
    """Return every object of the release ``name``, its Helm release Secret last.

    Certificates of the admission webhook are made anew at each call, as the chart's templates do.
    """
    settings = settings or LegacySettings()
    objects = fill("release.yaml", _values(name, namespace, replicas, settings))
    for body in objects:
        _own(body, name, namespace)
    chart = Chart(
        name="kong",
        version=CHART_VERSION,
        app_version=KONG_VERSION,
        home="https://konghq.com/",
        dependency="postgresql",
    )
    return [
        *objects,
        release_secret(
            name,
            namespace,
            chart,
            config=release_values(replicas, settings),
            manifest=dump(objects),
            deployed_at=settings.deployed_at,
        ),
    ]


def release_values(replicas: int, settings: LegacySettings) -> dict[str, Any]:
    """Return the user's values that lead to this release: what ``helm get values`` would print."""
    values: dict[str, Any] = {"replicaCount": replicas}
    repository, _, tag = settings.proxy_image.rpartition(":")
    if settings.proxy_image != f"kong:{KONG_VERSION}":
        values["image"] = {"repository": repository, "tag": tag}
    if settings.proxy_env:
        values["env"] = _value_keys(settings.proxy_env, "KONG_")
    if settings.controller_env:
        values["ingressController"] = {"env": _value_keys(settings.controller_env, "CONTROLLER_")}
    return values


def _value_keys(environment: dict[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix).lower(): value for key, value in environment.items()}


def _values(name: str, namespace: str, replicas: int, settings: LegacySettings) -> dict[str, Any]:
    full = full_name(name)
    environment = fill("environment.yaml", {"namespace": namespace, "full": full})[0]
    authority, webhook = _webhook_pair(full, namespace)
    return {
        "name": name,
        "namespace": namespace,
        "full": full,
        "replicas": replicas,
        "chart_version": CHART_VERSION,
        "selector": selector_labels(name),
        # The chart selects metrics and webhook endpoints by the versioned labels too.
        "versioned": {**meta_labels(name), COMPONENT: "app"},
        "pod_labels": {**meta_labels(name), COMPONENT: "app", "app": full, "version": KONG_VERSION},
        "proxy_image": settings.proxy_image,
        "init_image": settings.init_image or "",
        "controller_image": settings.controller_image,
        "proxy_env": _overlay(environment["proxy"], settings.proxy_env),
        "controller_env": _overlay(environment["controller"], settings.controller_env),
        "hardened": environment["hardened"],
        "proxy_mounts": [
            {"name": f"{full}-prefix-dir", "mountPath": "/kong_prefix/"},
            {"name": f"{full}-tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        ],
        "webhook_ca": authority.secret_data(),
        "webhook_pair": webhook.secret_data(),
        "webhook_bundle": base64.b64encode(authority.certificate_pem()).decode(),
    }


def _webhook_pair(full: str, namespace: str) -> tuple[KeyPair, KeyPair]:
    authority = create_authority("kong-admission-ca")
    service = f"{full}-validation-webhook.{namespace}.svc"
    return authority, issue_server(authority, [service])


def _overlay(environment: list[Object], changes: dict[str, str]) -> list[Object]:
    kept = [entry for entry in environment if entry["name"] not in changes]
    return kept + [{"name": key, "value": value} for key, value in changes.items()]


def _own(body: Object, release: str, namespace: str) -> None:
    """Add what helm and the chart put on every object, and drop an init container without an image."""
    metadata = body["metadata"]
    metadata["labels"] = {**meta_labels(release), **metadata.get("labels", {})}
    metadata["annotations"] = {
        **metadata.get("annotations", {}),
        "meta.helm.sh/release-name": release,
        "meta.helm.sh/release-namespace": namespace,
    }
    if body["kind"] == "Deployment":
        pod = body["spec"]["template"]["spec"]
        pod["initContainers"] = [entry for entry in pod["initContainers"] if entry["image"]]
        if not pod["initContainers"]:
            del pod["initContainers"]
