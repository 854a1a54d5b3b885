"""backendRefs of Gateway API routes, and the Kong services made from them."""

from __future__ import annotations

from collections.abc import Sequence

from konverge.translate.drafts import MISSING_PORT, Backend, Entity, Part, new_service
from konverge.translate.kinds import GATEWAY
from konverge.translate.objects import namespace_of
from konverge.translate.problems import Object
from konverge.translate.referring import is_granted
from konverge.translate.store import Scope

NO_BACKEND: Entity = {
    "name": "request-termination",
    "config": {"message": "no existing backendRef provided", "status_code": 500},
}
"""What a service answers none of whose backendRefs can be used, as Gateway API conformance asks."""


def accept_backends(kind: str, route: Object, references: Sequence[Object], scope: Scope) -> list[Backend]:
    """Return the backendRefs that can be used; every other one is a problem of the route."""
    backends = []
    for reference in references:
        cause = _refuse(kind, route, reference, scope)
        if cause:
            message = f"The backendRef {reference.get('name')} is ignored: {cause}."
            scope.report(kind, route, "BackendRefRejected", message)
            continue
        port = reference.get("port")
        backends.append(
            Backend(
                reference.get("namespace") or namespace_of(route),
                reference.get("name") or "",
                MISSING_PORT if port is None else port,
                weight=reference.get("weight"),
            )
        )
    return backends


def _refuse(kind: str, route: Object, reference: Object, scope: Scope) -> str:
    if reference.get("kind") != "Service":
        return f"its kind is {reference.get('kind') or 'missing'}, not Service"
    if (reference.get("group") or "") not in ("", "core"):
        return f"its group is {reference['group']}, not the core group"
    here, name = namespace_of(route), reference.get("name") or ""
    namespace = reference.get("namespace") or here
    if namespace != here and not is_granted(scope, namespace, GATEWAY, kind, here, "", "Service", name):
        return f"no ReferenceGrant in {namespace} allows it"
    if scope.get("Service", namespace, name) is None:
        return f"Service {namespace}/{name} does not exist"
    return ""


def new_part(
    kind: str,
    route: Object,
    name: str,
    protocol: str,
    references: Sequence[Object],
    scope: Scope,
    has_parent: bool = True,
) -> Part:
    """Return the Kong service of a rule, still without routes."""
    backends = accept_backends(kind, route, references, scope)
    parent = (kind, route) if has_parent else None
    part = Part(name, name, new_service(name, name, protocol), backends, kind, route, [], parent)
    if references and not backends and ("http" in protocol or "grpc" in protocol):
        part.plugins.append(NO_BACKEND)
    return part


def rule_tag(rule: Object) -> list[str]:
    """Return the tag of a rule that has a name."""
    name = rule.get("name")
    return [f"k8s-named-route-rule:{name}"] if name else []
