"""Which endpoints a Service has: pure functions of the Service and its pods.

Source: ``endpointslice/utils.go`` of Kubernetes. An endpoint of a terminating pod stays, not ready but
serving, until the pod is gone; that is what lets proxies fall back to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

from konverge.kube.resources import Object
from konverge.lab.controllers.conditions import pod_is_ready
from konverge.lab.controllers.selecting import includes, labels_of

MAX_ENDPOINTS = 100
"""Endpoints per slice; ``--max-endpoints-per-slice`` of kube-controller-manager."""


@dataclass(slots=True)
class PortGroup:
    """Pods that serve a Service under the same port numbers."""

    ports: list[Object]
    endpoints: dict[str, Object] = field(default_factory=dict)
    """By the address of the endpoint."""


def has_slices(service: Object) -> bool:
    """Tell whether the controller keeps slices for a Service: it needs a selector and an address."""
    spec = service["spec"]
    return bool(spec.get("selector")) and spec.get("type") != "ExternalName"


def select_pods(service: Object, pods: Iterable[Object]) -> list[Object]:
    """Return the pods that are endpoints of a Service, ready or not."""
    selector = service["spec"].get("selector")
    return [pod for pod in pods if includes(selector, labels_of(pod)) and _is_endpoint(pod)]


def _is_endpoint(pod: Object) -> bool:
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in ("Succeeded", "Failed")


def group_by_ports(service: Object, pods: Iterable[Object]) -> list[PortGroup]:
    """Return one group per set of port numbers; named target ports may differ from pod to pod."""
    groups: dict[bytes, PortGroup] = {}
    for pod in pods:
        ports = resolve_ports(service, pod)
        if not ports and service["spec"].get("ports"):
            continue
        group = groups.setdefault(port_key(ports), PortGroup(ports))
        endpoint = make_endpoint(service, pod)
        group.endpoints[endpoint["addresses"][0]] = endpoint
    return [groups[key] for key in sorted(groups)]


def port_key(ports: Iterable[Object]) -> bytes:
    """Return a key that is equal for equal ports, whatever a server leaves out or fills in."""
    names = ("name", "port", "protocol", "appProtocol")
    return orjson.dumps([[port.get(name) or "" for name in names] for port in ports])


def resolve_ports(service: Object, pod: Object) -> list[Object]:
    """Return the EndpointSlice ports of a Service on one pod; a name that the pod lacks is left out."""
    resolved = []
    for port in service["spec"].get("ports") or ():
        number = _find_port(port, pod)
        if number is None:
            continue
        entry = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        resolved.append(entry)
    return resolved


def _find_port(port: Object, pod: Object) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    for container in pod["spec"].get("containers") or ():
        for candidate in container.get("ports") or ():
            same = candidate.get("protocol", "TCP") == port.get("protocol", "TCP")
            if same and candidate.get("name") == target:
                return int(candidate["containerPort"])
    return int(target) if target.isdigit() else None


def make_endpoint(service: Object, pod: Object) -> Object:
    """Return the endpoint of a pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    serving = pod_is_ready(pod)
    terminating = bool(metadata.get("deletionTimestamp"))
    always = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": always or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    }
    if spec.get("nodeName"):
        endpoint["nodeName"] = spec["nodeName"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    return endpoint
