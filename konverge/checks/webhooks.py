"""Checks of admission webhooks that may stand in the way."""

from __future__ import annotations

from collections.abc import Iterator

from konverge.checks.legacy import read_release
from konverge.checks.registry import Answer, Severity, check, failed_if
from konverge.checks.scene import Object, Scene

CATEGORY = "Webhooks"
LONGEST_SECONDS = 10
OURS = {"": {"secrets", "services", "pods", "events"}, "apps": {"deployments"}, "konverge.dev": {"*"}}
"""What Konverge writes: a webhook on these that nobody answers stops it."""


def _webhooks(scene: Scene) -> Iterator[tuple[str, Object]]:
    for plural in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        for body in scene.list(plural):
            for hook in body.get("webhooks") or ():
                yield f"{body['kind']} {body['metadata']['name']}", hook


def _service(hook: Object) -> tuple[str, str] | None:
    service = (hook.get("clientConfig") or {}).get("service")
    return (service["namespace"], service["name"]) if service else None


def _is_answered(scene: Scene, service: tuple[str, str]) -> bool:
    namespace, name = service
    label = "kubernetes.io/service-name"
    return any(
        (endpoint.get("conditions") or {}).get("ready", True)
        for piece in scene.list("endpointslices/all")
        if piece["metadata"]["namespace"] == namespace and (piece["metadata"].get("labels") or {}).get(label) == name
        for endpoint in piece.get("endpoints") or ()
    )


def _concerns_us(hook: Object) -> bool:
    return any(
        ("*" in rule.get("apiGroups", ()) or group in rule.get("apiGroups", ()))
        and ("*" in resources or {r.split("/")[0] for r in rule.get("resources", ())} & (resources | {"*"}))
        for rule in hook.get("rules") or ()
        for group, resources in OURS.items()
    )


@check(
    "webhooks-answered",
    CATEGORY,
    Severity.ERROR,
    "Every webhook on what Konverge writes is answered",
    fix="Repair the webhook's Service, or delete its configuration: with failurePolicy Fail each write is refused.",
)
def webhooks_answered(scene: Scene) -> Answer:
    """No webhook with failurePolicy Fail on our kinds has a Service without a ready endpoint."""
    dead = [
        f"{owner}: nobody answers at Service {'/'.join(service)}"
        for owner, hook in _webhooks(scene)
        if hook.get("failurePolicy", "Fail") == "Fail"
        and _concerns_us(hook)
        and (service := _service(hook))
        and not _is_answered(scene, service)
    ]
    return failed_if(set(dead), "all are answered")


@check(
    "webhooks-legacy",
    CATEGORY,
    Severity.WARNING,
    "No webhook depends on the controllers that a migration retires",
    fix="Delete the webhook of the legacy release once it is migrated: Kong's objects could not be changed.",
)
def webhooks_legacy(scene: Scene) -> Answer:
    """No webhook on Kong's kinds is served by the pods of the legacy release."""
    release = read_release(scene)
    names = {body["metadata"]["name"] for body in scene.list("services")}
    prefix = release.name if release else ""
    hit = [
        f"{owner} is served by Service {service[1]}"
        for owner, hook in _webhooks(scene)
        if any("configuration.konghq.com" in rule.get("apiGroups", ()) for rule in hook.get("rules") or ())
        and (service := _service(hook))
        and service[0] == scene.namespace
        and (service[1] not in names or (prefix and service[1].startswith(prefix)))
    ]
    return failed_if(set(hit), "none")


@check(
    "webhooks-quick",
    CATEGORY,
    Severity.INFO,
    "Webhooks on what Konverge writes give up soon",
    fix="Lower timeoutSeconds of the webhook: every write waits for it.",
)
def webhooks_quick(scene: Scene) -> Answer:
    """timeoutSeconds is at most ten."""
    slow = [
        f"{owner} may take {seconds} s"
        for owner, hook in _webhooks(scene)
        if _concerns_us(hook) and (seconds := int(hook.get("timeoutSeconds", 10))) > LONGEST_SECONDS
    ]
    return failed_if(set(slow), f"at most {LONGEST_SECONDS} s")
