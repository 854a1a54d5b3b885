"""How a Service's endpoints are put into slices with as few writes as possible: pure functions.

Slices that exist are filled first and an endpoint stays in the slice it is in, so that one pod's change is
one small write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from konverge.kube.resources import ENDPOINT_SLICES, SERVICES, Object
from konverge.lab.controllers.endpoints import MAX_ENDPOINTS, PortGroup, port_key
from konverge.lab.controllers.owning import reference_to

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
CONTROLLER = "endpointslice-controller.k8s.io"


@dataclass(slots=True)
class SlicePlan:
    """The writes that bring the slices up to date."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def slice_labels(service: Object) -> dict[str, str]:
    """Return the labels of a Service's slices: its own and those of the controller."""
    labels = dict(service["metadata"].get("labels") or {})
    labels.pop(HEADLESS, None)
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS] = ""
    return {**labels, SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: CONTROLLER}


def plan_slices(service: Object, groups: Sequence[PortGroup], held: Sequence[Object]) -> SlicePlan:
    """Return the writes; a Service without endpoints keeps one empty slice as a placeholder."""
    plan = SlicePlan()
    by_ports: dict[bytes, list[Object]] = {}
    for item in held:
        by_ports.setdefault(port_key(item.get("ports") or ()), []).append(item)
    for group in groups or [PortGroup([])]:
        _plan_group(plan, service, group, by_ports.pop(port_key(group.ports), []))
    for items in by_ports.values():
        plan.delete.extend(items)
    return plan


def _plan_group(plan: SlicePlan, service: Object, group: PortGroup, held: list[Object]) -> None:
    missing = dict(group.endpoints)
    contents = [_keep(item, missing) for item in held]
    for content in sorted(contents, key=len, reverse=True):
        while missing and len(content) < MAX_ENDPOINTS:
            content.append(missing.pop(next(iter(missing))))
    for item, content in zip(held, contents, strict=True):
        _plan_one(plan, service, item, content, sole=len(held) == 1 and not group.ports)
    rest = list(missing.values())
    for start in range(0, len(rest), MAX_ENDPOINTS):
        plan.create.append(make_slice(service, group.ports, rest[start : start + MAX_ENDPOINTS]))
    if not held and not rest:
        plan.create.append(make_slice(service, group.ports, []))


def _keep(item: Object, missing: dict[str, Object]) -> list[Object]:
    """Return the slice's endpoints that are still wanted, in their places and as they are to be."""
    addresses = [endpoint["addresses"][0] for endpoint in item.get("endpoints") or ()]
    return [missing.pop(address) for address in addresses if address in missing]


def _plan_one(plan: SlicePlan, service: Object, item: Object, content: list[Object], *, sole: bool) -> None:
    if not content and not sole:
        plan.delete.append(item)
        return
    labels = slice_labels(service)
    if content == (item.get("endpoints") or []) and labels == item["metadata"].get("labels"):
        return
    metadata = {**item["metadata"], "labels": labels}
    plan.update.append({**item, "metadata": metadata, "endpoints": content})


def make_slice(service: Object, ports: list[Object], endpoints: list[Object]) -> Object:
    """Return a new slice."""
    return {
        "apiVersion": ENDPOINT_SLICES.api_version,
        "kind": ENDPOINT_SLICES.kind,
        "metadata": {
            "generateName": service["metadata"]["name"] + "-",
            "namespace": service["metadata"]["namespace"],
            "labels": slice_labels(service),
            "ownerReferences": [reference_to(service, SERVICES)],
        },
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": endpoints,
    }
