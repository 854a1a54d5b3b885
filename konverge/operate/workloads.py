"""Edits and watches workloads: apply, scale, select, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from konverge.errors import Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Object,
    Resource,
)

POLL = 0.25
"""Seconds between two looks at an object that is waited for."""

_RBAC = "rbac.authorization.k8s.io"
APPLIED: dict[str, Resource] = {
    "Service": SERVICES,
    "Deployment": DEPLOYMENTS,
    "PodDisruptionBudget": POD_DISRUPTION_BUDGETS,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": Resource(_RBAC, "v1", "roles", "Role"),
    "RoleBinding": Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    "ClusterRole": Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
}
"""The kinds that a fleet is made of."""


async def apply_objects(kube: KubeClient, objects: Iterable[Object]) -> None:
    """Apply objects in order; applying them again changes nothing."""
    for body in objects:
        await kube.apply(APPLIED[body["kind"]], body)


async def delete_objects(kube: KubeClient, objects: Iterable[Object]) -> None:
    """Delete objects in reverse order; those that are gone are no error."""
    for body in reversed(list(objects)):
        metadata = body["metadata"]
        await kube.delete(APPLIED[body["kind"]], metadata["name"], metadata.get("namespace"))


async def is_managed_elsewhere(kube: KubeClient, deployment: str, namespace: str) -> bool:
    """Tell whether a Deployment is there and somebody else, such as Helm, declares it: it is not ours to apply."""
    body = await kube.find(DEPLOYMENTS, deployment, namespace)
    labels = ((body or {}).get("metadata") or {}).get("labels") or {}
    return body is not None and labels.get("app.kubernetes.io/managed-by", "konverge") != "konverge"


async def scale(kube: KubeClient, deployment: str, namespace: str, replicas: int) -> None:
    """Set the replicas of a Deployment."""
    await kube.patch(DEPLOYMENTS, deployment, {"spec": {"replicas": replicas}}, namespace)


async def select(kube: KubeClient, service: str, namespace: str, selector: Mapping[str, str]) -> None:
    """Exchange the whole selector of a Service; a merge would keep keys of the old one and match no pod."""
    patch = [{"op": "replace", "path": "/spec/selector", "value": dict(selector)}]
    await kube.patch(SERVICES, service, patch, namespace, kind="json")


async def label_pod(kube: KubeClient, pod: str, namespace: str, key: str, value: str | None) -> None:
    """Set or, with None, remove a label of a pod."""
    await kube.patch(PODS, pod, {"metadata": {"labels": {key: value}}}, namespace)


async def list_pods(kube: KubeClient, namespace: str, selector: Mapping[str, str]) -> list[Object]:
    """Read the pods with these labels that are not on their way out."""
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    pods = await kube.list_all(PODS, namespace, labels=labels)
    return [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]


def is_ready(pod: Object) -> bool:
    """Tell whether the pod's Ready condition is True."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def wait_for_deployment(
    kube: KubeClient, deployment: str, namespace: str, timeout: float, ready: Callable[[Object], bool]
) -> Object:
    """Wait until a Deployment satisfies ``ready``; Unavailable says how far it was."""
    body: Object = {}
    try:
        async with asyncio.timeout(timeout):
            while True:
                body = await kube.get(DEPLOYMENTS, deployment, namespace)
                if ready(body):
                    return body
                await asyncio.sleep(POLL)
    except TimeoutError:
        status = body.get("status", {})
        raise Unavailable(
            f"Deployment {namespace}/{deployment} was not ready within {timeout:.0f} s:"
            f" {status.get('readyReplicas', 0)} of {body.get('spec', {}).get('replicas')} replicas ready",
            reason="DeploymentNotReady",
            hint="reference/errors.md#deployment-not-ready",
        ) from None


def all_ready(body: Object) -> bool:
    """Tell whether every replica of the newest template is ready and no other one is left."""
    status, wanted = body.get("status", {}), body["spec"].get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= body["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


async def wait_until_gone(kube: KubeClient, namespace: str, selector: Mapping[str, str], timeout: float) -> None:
    """Wait until no pod with these labels is left, those on their way out included; Unavailable names who stays."""
    labels = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    pods: list[Object] = []
    try:
        async with asyncio.timeout(timeout):
            while True:
                pods = await kube.list_all(PODS, namespace, labels=labels)
                if not pods:
                    return
                await asyncio.sleep(POLL)
    except TimeoutError:
        raise Unavailable(
            f"Still there after {timeout:.0f} s: {', '.join(pod['metadata']['name'] for pod in pods)}",
            reason="PodsNotGone",
            hint="reference/errors.md#pods-not-gone",
        ) from None
