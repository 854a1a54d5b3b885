"""Scale, binding, eviction, tokens and finalize: parts of objects that read or write something of their own."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from konverge.lab.apiserver.decoding import parse_body
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.merging.patching import APPLY, JSON, MERGE, STRATEGIC, merge_json, patch_json
from konverge.lab.apiserver.removing import Options, remove_entry
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.selecting import select_labels
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import (
    Cause,
    StatusError,
    bad_request,
    conflict,
    internal,
    not_found,
    too_many_requests,
    wrong,
)
from konverge.lab.apiserver.store import Entry, Object, copy_json
from konverge.lab.apiserver.tokens import DEFAULT_SECONDS, ISSUER, MIN_SECONDS
from konverge.lab.apiserver.writing import change_object

BUDGETS = "policy/poddisruptionbudgets"
DEFAULT_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": "",
}


def find_entry(state: State, request: Request) -> Entry:
    """Return the object that a subresource belongs to."""
    kind = request.need_kind()
    entry = state.store.collection(kind.storage).get(request.namespace, request.name)
    if entry is None:
        raise not_found(kind, request.name)
    return entry


def _read_path(obj: Object, path: str) -> Any:
    value: Any = obj
    for step in path.strip(".").split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def build_scale(kind: ResourceKind, obj: Object) -> Object:
    """Return the Scale of an object."""
    paths = (kind.custom.scale if kind.custom else None) or DEFAULT_SCALE
    metadata = {
        key: obj["metadata"][key]
        for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if key in obj["metadata"]
    }
    wanted = _read_path(obj, paths["specReplicasPath"])
    status: Object = {"replicas": _read_path(obj, paths["statusReplicasPath"]) or 0}
    selector = _show_selector(kind, obj, paths)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": wanted} if wanted else {},
        "status": status,
    }


def _show_selector(kind: ResourceKind, obj: Object, paths: dict[str, str]) -> str:
    if kind.custom is not None:
        path = paths.get("labelSelectorPath")
        return str(_read_path(obj, path) or "") if path else ""
    selector = (obj.get("spec") or {}).get("selector") or {}
    shown = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    words = {"In": "in", "NotIn": "notin"}
    for expression in selector.get("matchExpressions") or ():
        operator = expression["operator"]
        if operator in words:
            shown.append(f"{expression['key']} {words[operator]} ({','.join(sorted(expression['values']))})")
        else:
            shown.append(expression["key"] if operator == "Exists" else f"!{expression['key']}")
    return ",".join(shown)


async def serve_scale(state: State, request: Request) -> Object:
    """Serve GET, PUT and PATCH on /scale."""
    kind = request.need_kind()
    entry = find_entry(state, request)
    if request.verb == "get":
        return build_scale(kind, entry.object)
    paths = (kind.custom.scale if kind.custom else None) or DEFAULT_SCALE

    def build(current: Object) -> Object:
        scale = _read_scale(request, build_scale(kind, current))
        replicas = (scale.get("spec") or {}).get("replicas") or 0
        if not isinstance(replicas, int) or replicas < 0:
            raise _refuse_scale(request.name, replicas)
        version = (scale.get("metadata") or {}).get("resourceVersion")
        if version and version != current["metadata"]["resourceVersion"]:
            raise conflict(kind, request.name)
        obj = copy_json(current)
        obj["metadata"].pop("resourceVersion")
        _write_path(obj, paths["specReplicasPath"], replicas)
        result: Object = obj
        return result

    scaled = Request(**{name: getattr(request, name) for name in request.__slots__})
    scaled.subresource = ""
    written = await change_object(state, scaled, kind, build)
    return build_scale(kind, written.entry.object)


def _read_scale(request: Request, current: Object) -> Object:
    media = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if request.verb == "update":
        body = parse_body(request.body, media)
    else:
        patch = parse_body(request.body, media, (JSON, MERGE, STRATEGIC, APPLY))
        body = patch_json(current, patch) if media == JSON else merge_json(current, patch)
    if not isinstance(body, dict):
        raise bad_request("Scale: expected an object")
    return body


def _refuse_scale(name: str, replicas: Any) -> StatusError:
    cause = wrong("spec.replicas", replicas, "must be greater than or equal to 0")
    details = {"name": name, "group": "autoscaling", "kind": "Scale", "causes": [cause.encode()]}
    return StatusError(422, "Invalid", f'Scale.autoscaling "{name}" is invalid: {cause.show()}', details)


def _write_path(obj: Object, path: str, value: Any) -> None:
    *steps, last = path.strip(".").split(".")
    for step in steps:
        obj = obj.setdefault(step, {})
    obj[last] = value


def bind_pod(state: State, request: Request) -> Object:
    """Serve POST on pods/binding: what a scheduler does."""
    body = parse_body(request.body, request.headers.get("Content-Type", ""))
    node = (body.get("target") or {}).get("name") if isinstance(body, dict) else None
    if not node:
        raise bad_request("target.name: Required value")
    entry = find_entry(state, request)
    obj = copy_json(entry.object)
    if obj["spec"].get("nodeName"):
        why = f'pod {request.name} is already assigned to node "{obj["spec"]["nodeName"]}"'
        raise conflict(request.need_kind(), request.name, why)
    obj["spec"]["nodeName"] = node
    conditions = [c for c in obj["status"].get("conditions") or () if c["type"] != "PodScheduled"]
    conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": state.clock.stamp()})
    obj["status"]["conditions"] = conditions
    if not request.dry_run:
        state.store.put("pods", obj)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def evict_pod(state: State, request: Request) -> Object:
    """Serve POST on pods/eviction: deletes the pod unless a disruption budget says no (429)."""
    body = parse_body(request.body, request.headers.get("Content-Type", "")) if request.body else {}
    if not isinstance(body, dict):
        raise bad_request("Eviction: expected an object")
    options = body.get("deleteOptions") or {}
    entry = find_entry(state, request)
    budgets = _find_budgets(state, entry)
    healthy = (entry.object.get("status") or {}).get("phase") not in ("Pending", "Succeeded", "Failed")
    if healthy and not entry.object["metadata"].get("deletionTimestamp"):
        if len(budgets) > 1:
            raise internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if budgets:
            _spend_budget(state, request, budgets[0])
    preconditions = options.get("preconditions") or {}
    if preconditions.get("uid") not in (None, entry.object["metadata"]["uid"]):
        raise conflict(request.need_kind(), request.name, "Precondition failed: UID in precondition")
    kind = request.need_kind()
    remove_entry(state, kind, entry, Options(grace=options.get("gracePeriodSeconds")), dry_run=request.dry_run)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _find_budgets(state: State, pod: Entry) -> list[Entry]:
    namespace = pod.key[0]
    return [
        entry
        for entry in state.store.collection(BUDGETS).entries(namespace)
        if select_labels(entry.object.get("spec", {}).get("selector"))(pod.object)
    ]


def _spend_budget(state: State, request: Request, budget: Entry) -> None:
    status = budget.object.get("status") or {}
    generation = budget.object["metadata"].get("generation", 0)
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    name = budget.object["metadata"]["name"]
    if status.get("observedGeneration", 0) < generation:
        why = f"The disruption budget {name} is still being processed by the server."
        raise too_many_requests(message, 10, [Cause("DisruptionBudget", why, "")])
    if status.get("disruptionsAllowed", 0) <= 0:
        why = (
            f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods and has "
            f"{status.get('currentHealthy', 0)} currently"
        )
        raise too_many_requests(message, 0, [Cause("DisruptionBudget", why, "")])
    if not request.dry_run:
        obj = copy_json(budget.object)
        obj["status"]["disruptionsAllowed"] -= 1
        obj["status"].setdefault("disruptedPods", {})[request.name] = state.clock.stamp()
        state.store.put(BUDGETS, obj)


def issue_token(state: State, request: Request) -> Object:
    """Serve POST on serviceaccounts/token: a TokenRequest with its status filled in."""
    body = parse_body(request.body, request.headers.get("Content-Type", "")) if request.body else {}
    spec = (body.get("spec") if isinstance(body, dict) else None) or {}
    account = find_entry(state, request).object
    seconds = spec.get("expirationSeconds") or DEFAULT_SECONDS
    if seconds < MIN_SECONDS:
        cause = wrong("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
        details = {
            "name": request.name,
            "group": "authentication.k8s.io",
            "kind": "TokenRequest",
            "causes": [cause.encode()],
        }
        raise StatusError(
            422, "Invalid", f'TokenRequest.authentication.k8s.io "" is invalid: {cause.show()}', details
        )
    pod = _bound_pod(state, request, spec.get("boundObjectRef"))
    audiences = tuple(spec.get("audiences") or ())
    token, expires = state.issuer.issue(account, seconds, audiences, pod)
    stamp = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": request.name, "namespace": request.namespace, "creationTimestamp": state.clock.stamp()},
        "spec": {
            "audiences": list(audiences or (ISSUER,)),
            "expirationSeconds": math.floor(seconds),
            "boundObjectRef": spec.get("boundObjectRef"),
        },
        "status": {"token": token, "expirationTimestamp": stamp},
    }


def _bound_pod(state: State, request: Request, reference: Object | None) -> Object | None:
    if not reference or reference.get("kind") != "Pod":
        return None
    pods = state.registry.find("", "v1", "pods")
    assert pods is not None
    entry = state.store.collection("pods").get(request.namespace, reference.get("name") or "")
    if entry is None:
        raise not_found(pods, reference.get("name") or "")
    uid = entry.object["metadata"]["uid"]
    if reference.get("uid") not in (None, "", uid):
        raise conflict(
            pods,
            reference["name"],
            f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated",
        )
    return entry.object
