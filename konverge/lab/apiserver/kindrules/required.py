"""Required fields of built-in types: refused where a person left them out, filled in where a program did."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.schemas import Node
from konverge.lab.apiserver.statuses import Cause, required
from konverge.lab.apiserver.store import Object

ZEROS: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "list": None, "map": None}
LAX = frozenset(
    {
        ("discovery.v1.EndpointSlice", "endpoints"),
        ("discovery.v1.EndpointSlice", "addressType"),
        ("discovery.v1.Endpoint", "addresses"),
        ("core.v1.Event", "metadata"),
        ("core.v1.Event", "involvedObject"),
        ("networking.v1.HTTPIngressPath", "pathType"),
        ("networking.v1.HTTPIngressPath", "backend"),
        ("networking.v1.HTTPIngressRuleValue", "paths"),
        ("networking.v1.IngressServiceBackend", "name"),
        ("core.v1.PodSpec", "containers"),
        ("core.v1.Container", "name"),
        ("core.v1.ServicePort", "port"),
        ("core.v1.ContainerPort", "containerPort"),
        ("core.v1.VolumeMount", "name"),
        ("rbac.v1.RoleBinding", "roleRef"),
        ("rbac.v1.ClusterRoleBinding", "roleRef"),
        ("rbac.v1.RoleRef", "kind"),
        ("rbac.v1.RoleRef", "name"),
        ("rbac.v1.RoleRef", "apiGroup"),
        ("rbac.v1.PolicyRule", "verbs"),
        ("apps.v1.DeploymentSpec", "selector"),
        ("apps.v1.ReplicaSetSpec", "selector"),
        ("apps.v1.StatefulSetSpec", "selector"),
        ("apps.v1.DaemonSetSpec", "selector"),
        ("apps.v1.StatefulSetSpec", "serviceName"),
        ("batch.v1.CronJobSpec", "schedule"),
        ("autoscaling.v2.HorizontalPodAutoscalerSpec", "maxReplicas"),
        ("core.v1.SecretKeySelector", "key"),
        ("meta.v1.OwnerReference", "uid"),
    }
)
"""Fields that are required by the published types but that the server checks otherwise, or not at all."""


def check_required(node: Node, obj: Object) -> list[Cause]:
    """Return the required fields that are missing outside metadata and status."""
    causes: list[Cause] = []
    for key, value in obj.items():
        if key in ("metadata", "status", "apiVersion", "kind"):
            continue
        child = node.child(key)
        if child is not None:
            _check(child, value, key, causes)
    _check_here(node, obj, "", causes)
    return causes


def _check(node: Node, value: Any, path: str, causes: list[Cause]) -> None:
    if node.kind == "struct" and isinstance(value, dict):
        assert node.struct is not None
        fields = node.struct.fields
        for key, item in value.items():
            child = fields.get(key)
            if child is not None and child.kind in ("struct", "list", "map"):
                _check(child, item, f"{path}.{key}", causes)
        _check_here(node, value, path + ".", causes)
    elif node.kind == "list" and isinstance(value, list) and node.element is not None:
        if node.element.kind == "struct":
            for index, item in enumerate(value):
                _check(node.element, item, f"{path}[{index}]", causes)
    elif (
        node.kind == "map" and isinstance(value, dict) and node.element is not None and node.element.kind == "struct"
    ):
        for key, item in value.items():
            _check(node.element, item, f"{path}[{key}]", causes)


def _check_here(node: Node, value: Object, prefix: str, causes: list[Cause]) -> None:
    assert node.struct is not None
    for name in node.struct.required:
        if value.get(name) is None and (node.struct.name, name) not in LAX:
            causes.append(required(f"{prefix}{name}"))


def fill_required(node: Node, value: Any) -> None:
    """Set required fields that are missing to their zero, as the server's own types write them."""
    if node.kind == "list" and isinstance(value, list) and node.element is not None:
        for item in value:
            fill_required(node.element, item)
    if node.struct is None or not isinstance(value, dict):
        return
    for name in node.struct.required:
        child = node.struct.fields[name]
        if value.get(name) is None and child.kind in ZEROS:
            value[name] = ZEROS[child.kind]
    for key, item in value.items():
        child_node = node.struct.fields.get(key)
        if child_node is not None and child_node.kind in ("struct", "list"):
            fill_required(child_node, item)
