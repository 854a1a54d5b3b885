"""Asks a running lab how it is."""

from __future__ import annotations

from typing import Any

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import NODES, PODS, SERVICES, Object
from konverge.lab.controllers.conditions import holds
from konverge.lab.supervisor.showing import describe_pod, describe_state
from konverge.lab.supervisor.states import LabState
from konverge.lab.supervisor.waiting import load_balancer_ip


async def inspect_lab(state: LabState) -> tuple[dict[str, Any], list[Object]]:
    """Return (everything as JSON, the pods); an API server that does not answer becomes ``error``."""
    shown = describe_state(state, running=True)
    try:
        async with await KubeClient.connect(state.kubeconfig) as client:
            nodes = await client.list_all(NODES)
            pods = await client.list_all(PODS)
            services = await client.list_all(SERVICES)
    except KonvergeError as error:
        return {**shown, "healthy": False, "error": error.triple()}, []
    shown["nodes"] = [{"name": node["metadata"]["name"], "ready": holds(node, "Ready")} for node in nodes]
    shown["pods"] = [describe_pod(pod) for pod in pods]
    shown["services"] = [_describe_service(service) for service in services]
    shown["healthy"] = all(item.ready for item in state.components) and all(node["ready"] for node in shown["nodes"])
    return shown, pods


def _describe_service(service: Object) -> dict[str, Any]:
    spec = service["spec"]
    return {
        "namespace": service["metadata"]["namespace"],
        "name": service["metadata"]["name"],
        "type": spec.get("type", "ClusterIP"),
        "cluster_ip": spec.get("clusterIP"),
        "load_balancer_ip": load_balancer_ip(service),
        "ports": [port["port"] for port in spec.get("ports") or ()],
    }
