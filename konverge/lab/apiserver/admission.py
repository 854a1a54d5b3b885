"""What may stop a write that is well formed: namespaces that are gone or going, and validating webhooks."""

from __future__ import annotations

from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import forbidden, not_found
from konverge.lab.apiserver.store import Object
from konverge.lab.apiserver.webhooks import call_validating

VALIDATING = "admissionregistration.k8s.io/validatingwebhookconfigurations"


def check_namespace(state: State, request: Request, kind: ResourceKind, obj: Object) -> None:
    """Refuse a new object in a namespace that does not exist (404) or is being deleted (403)."""
    if not kind.namespaced:
        return
    namespaces = state.registry.find("", "v1", "namespaces")
    assert namespaces is not None
    entry = state.store.collection("namespaces").get("", request.namespace)
    if entry is None:
        raise not_found(namespaces, request.namespace)
    if entry.object["metadata"].get("deletionTimestamp"):
        name = obj["metadata"].get("name", "")
        why = f"unable to create new content in namespace {request.namespace} because it is being terminated"
        error = forbidden(kind, name, why)
        error.status["details"]["causes"] = [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {request.namespace} is being terminated",
                "field": "metadata.namespace",
            }
        ]
        raise error


async def admit(state: State, request: Request, kind: ResourceKind, obj: Object, old: Object | None) -> None:
    """Ask the validating webhooks, where there are any."""
    if state.store.collection(VALIDATING).spaces:
        await call_validating(state, request, kind, obj, old)
