"""Validating admission webhooks: AdmissionReview v1 sent to the URLs of the registered configurations.

Only ``clientConfig.url`` and Services whose cluster address answers are reachable; mutating webhooks are
stored but not called.
"""

from __future__ import annotations

import base64
import ssl
import uuid
from typing import Any

import aiohttp

from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.selecting import select_labels
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import StatusError, internal
from konverge.lab.apiserver.store import Object

CONFIGURATIONS = "admissionregistration.k8s.io/validatingwebhookconfigurations"
OPERATIONS = {"create": "CREATE", "update": "UPDATE", "patch": "UPDATE", "delete": "DELETE"}


async def call_validating(
    state: State, request: Request, kind: ResourceKind, obj: Object, old: Object | None
) -> None:
    """Call every webhook that the request matches, one after the other; raises what the first one refuses."""
    operation = "CREATE" if old is None else OPERATIONS.get(request.verb, "UPDATE")
    for entry in state.store.collection(CONFIGURATIONS).entries():
        if kind.group == "admissionregistration.k8s.io":
            continue
        for hook in entry.object.get("webhooks") or ():
            if _matches(state, hook, request, kind, operation, obj):
                await _call(state, hook, request, kind, operation, obj, old)


def _matches(state: State, hook: Object, request: Request, kind: ResourceKind, operation: str, obj: Object) -> bool:
    if not any(_rule_matches(rule, request, kind, operation) for rule in hook.get("rules") or ()):
        return False
    if hook.get("objectSelector") and not select_labels(hook["objectSelector"])(obj):
        return False
    if hook.get("namespaceSelector") and kind.namespaced:
        space = state.store.collection("namespaces").get("", request.namespace)
        return space is not None and select_labels(hook["namespaceSelector"])(space.object)
    return True


def _rule_matches(rule: Object, request: Request, kind: ResourceKind, operation: str) -> bool:
    resource = f"{kind.plural}/{request.subresource}" if request.subresource else kind.plural
    return (
        _in(operation, rule.get("operations"))
        and _in(kind.group, rule.get("apiGroups"))
        and _in(kind.version, rule.get("apiVersions"))
        and (_in(resource, rule.get("resources")) or "*/*" in (rule.get("resources") or ()))
        and rule.get("scope") in ("*", None, "Namespaced" if kind.namespaced else "Cluster")
    )


def _in(value: str, allowed: list[str] | None) -> bool:
    return allowed is not None and ("*" in allowed or value in allowed)


async def _call(
    state: State, hook: Object, request: Request, kind: ResourceKind, operation: str, obj: Object, old: Object | None
) -> None:
    review = _build_review(request, kind, operation, obj, old)
    try:
        answer = await _post(state, hook, review)
        response = answer["response"]
        allowed = bool(response["allowed"])
    except (aiohttp.ClientError, TimeoutError, OSError, KeyError, TypeError, ValueError) as error:
        if hook.get("failurePolicy") == "Ignore":
            return
        cause = str(error) or type(error).__name__
        raise internal(f'failed calling webhook "{hook["name"]}": failed to call webhook: {cause}') from error
    request.warnings += response.get("warnings") or []
    if not allowed:
        status = response.get("status") or {}
        text = status.get("message") or "without explanation"
        joined = f": {text}" if status.get("message") else f" {text}"
        message = f'admission webhook "{hook["name"]}" denied the request{joined}'
        raise StatusError(int(status.get("code") or 403), status.get("reason") or "Forbidden", message)


def _build_review(
    request: Request, kind: ResourceKind, operation: str, obj: Object, old: Object | None
) -> dict[str, Any]:
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    gvr = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    body = {
        "uid": str(uuid.uuid4()),
        "kind": gvk,
        "resource": gvr,
        "requestKind": gvk,
        "requestResource": gvr,
        "name": obj["metadata"].get("name", ""),
        "namespace": request.namespace,
        "operation": operation,
        "userInfo": {"username": request.user.name, "groups": list(request.user.groups)},
        "object": obj,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": None,
    }
    if request.subresource:
        body["subResource"] = request.subresource
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": body}


async def _post(state: State, hook: Object, review: dict[str, Any]) -> Any:
    config = hook["clientConfig"]
    url = config.get("url") or _service_url(state, config["service"])
    context = ssl.create_default_context()
    if config.get("caBundle"):
        context = ssl.create_default_context(cadata=base64.b64decode(config["caBundle"]).decode())
    timeout = aiohttp.ClientTimeout(total=hook.get("timeoutSeconds", 10))
    async with aiohttp.ClientSession(timeout=timeout) as session:
        server = None if config.get("url") else f"{config['service']['name']}.{config['service']['namespace']}.svc"
        async with session.post(url, json=review, ssl=context, server_hostname=server) as response:
            response.raise_for_status()
            return await response.json(content_type=None)


def _service_url(state: State, reference: Object) -> str:
    entry = state.store.collection("services").get(reference["namespace"], reference["name"])
    if entry is None:
        raise ValueError(f'service "{reference["name"]}" not found')
    address = entry.object["spec"].get("clusterIP")
    return f"https://{address}:{reference.get('port', 443)}{reference.get('path') or '/'}"
