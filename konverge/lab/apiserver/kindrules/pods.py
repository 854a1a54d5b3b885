"""Pods and pod templates: defaults, the service account's volume, quality of service, what may change."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from konverge.lab.apiserver.kindrules.base import Rules, put_defaults
from konverge.lab.apiserver.metadata import LABEL, RFC1123_LABEL, generate_name
from konverge.lab.apiserver.quantities import parse_quantity
from konverge.lab.apiserver.statuses import Cause, StatusError, denied, duplicate, required, unsupported, wrong
from konverge.lab.apiserver.store import Object, copy_json

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State

TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a directory
TOKEN_SECONDS = 3607
"""Lifetime that the projected token asks for; the admission plugin's own number."""
FILE_MODE = 0o644
TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
MUTABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def default_pod_spec(spec: Object) -> None:
    """Fill the defaults that pods and templates share."""
    put_defaults(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for container in (spec.get("containers") or []) + (spec.get("initContainers") or []):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: Object) -> None:
    image = container.get("image") or ""
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    always = (not tag and "@" not in image) or tag == "latest"
    put_defaults(
        container,
        imagePullPolicy="Always" if always else "IfNotPresent",
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        resources={},
    )
    for port in container.get("ports") or ():
        put_defaults(port, protocol="TCP")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            put_defaults(reference, apiVersion="v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _default_probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict) and hook.get("httpGet") is not None:
            put_defaults(hook["httpGet"], scheme="HTTP", path="/")


def _default_probe(probe: Object) -> None:
    put_defaults(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
    if probe.get("httpGet") is not None:
        put_defaults(probe["httpGet"], scheme="HTTP", path="/")
    if probe.get("grpc") is not None:
        put_defaults(probe["grpc"], service="")


def _default_volume(volume: Object) -> None:
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(name) is not None:
            put_defaults(volume[name], defaultMode=FILE_MODE)
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("serviceAccountToken") is not None:
            put_defaults(source["serviceAccountToken"], expirationSeconds=3600)
        for item in (source.get("downwardAPI") or {}).get("items") or ():
            if item.get("fieldRef") is not None:
                put_defaults(item["fieldRef"], apiVersion="v1")
    if volume.get("hostPath") is not None:
        put_defaults(volume["hostPath"], type="")


class PodRules(Rules):
    """Pods get an account, tolerations and a phase at creation; afterwards little of them may change."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        self._attach_account(state, obj, spec)
        put_defaults(spec, enableServiceLinks=True, priority=0, preemptionPolicy="PreemptLowerPriority")
        tolerations = spec.setdefault("tolerations", [])
        for key in TOLERATED:
            if not any(t.get("key") in (key, None) and t.get("effect") in ("NoExecute", None) for t in tolerations):
                tolerations.append(
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                )
        for container in spec.get("containers") or ():
            resources = container.get("resources") or {}
            if resources.get("limits"):
                resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
        obj["status"] = {"phase": "Pending", "qosClass": find_quality(spec)}

    def _attach_account(self, state: State, obj: Object, spec: Object) -> None:
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = name
        namespace = obj["metadata"]["namespace"]
        account = state.store.collection("serviceaccounts").get(namespace, name)
        if account is None:
            pod = obj["metadata"].get("name", "")
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            details = {"name": pod, "kind": "pods"}
            raise StatusError(403, "Forbidden", f'pods "{pod}" is forbidden: {why}', details)
        if not spec.get("imagePullSecrets") and account.object.get("imagePullSecrets"):
            spec["imagePullSecrets"] = copy_json(account.object["imagePullSecrets"])
        wanted = spec.get("automountServiceAccountToken")
        if wanted is None:
            wanted = account.object.get("automountServiceAccountToken")
        if wanted is not False:
            mount_token(spec)

    @override
    def prepare_change(self, state: State, obj: Object, old: Object, subresource: str) -> None:
        if subresource == "status":
            obj["status"] = {**obj.get("status", {}), "qosClass": find_quality(obj["spec"])}

    @override
    def default(self, obj: Object) -> None:
        default_pod_spec(obj.setdefault("spec", {}))
        for condition in (obj.get("status") or {}).get("conditions") or ():
            condition.setdefault("lastProbeTime", None)
            condition.setdefault("lastTransitionTime", None)

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = check_pod_spec(obj["spec"], "spec")
        return causes + _check_changed(obj["spec"], old["spec"]) if old is not None else causes


def mount_token(spec: Object) -> None:
    """Add the projected volume with token, CA and namespace, and mount it in every container."""
    containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
    needy = [c for c in containers if all(m.get("mountPath") != TOKEN_PATH for m in c.get("volumeMounts") or ())]
    if not needy:
        return
    name = generate_name("kube-api-access-")
    ca = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": ca},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
    ]
    spec.setdefault("volumes", []).append({"name": name, "projected": {"sources": sources, "defaultMode": FILE_MODE}})
    for container in needy:
        container.setdefault("volumeMounts", []).append({"name": name, "readOnly": True, "mountPath": TOKEN_PATH})


def find_quality(spec: Object) -> str:
    """Return Guaranteed, Burstable or BestEffort."""
    containers = (spec.get("containers") or []) + (spec.get("initContainers") or [])
    resources = [container.get("resources") or {} for container in containers]
    if not any(r.get("limits") or r.get("requests") for r in resources):
        return "BestEffort"
    guaranteed = all(
        {"cpu", "memory"} <= (r.get("limits") or {}).keys()
        and all(
            _amount(r["limits"][k]) == _amount((r.get("requests") or r["limits"]).get(k, r["limits"][k]))
            for k in ("cpu", "memory")
        )
        for r in resources
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(text: str) -> Decimal:
    return parse_quantity(str(text))


def check_pod_spec(spec: Object, field: str) -> list[Cause]:
    """Return what is wrong with the spec of a pod or a template."""
    causes: list[Cause] = []
    containers = spec.get("containers") or []
    if not containers:
        causes.append(required(f"{field}.containers"))
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    seen: set[str] = set()
    for part in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(part) or ()):
            causes += _check_container(container, f"{field}.{part}[{index}]", seen, volumes)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        causes.append(
            unsupported(f"{field}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
        )
    return causes


def _check_container(container: Object, field: str, seen: set[str], volumes: set[Any]) -> list[Cause]:
    causes = []
    name = container.get("name") or ""
    if not name:
        causes.append(required(f"{field}.name"))
    elif not LABEL.match(name):
        causes.append(wrong(f"{field}.name", name, RFC1123_LABEL))
    elif name in seen:
        causes.append(duplicate(f"{field}.name", name))
    seen.add(name)
    if not container.get("image"):
        causes.append(required(f"{field}.image"))
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort") or 0
        if not 0 < number < 65536:
            causes.append(
                wrong(f"{field}.ports[{index}].containerPort", number, "must be between 1 and 65535, inclusive")
            )
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            causes.append(
                Cause(
                    "FieldValueNotFound", f'Not found: "{mount.get("name")}"', f"{field}.volumeMounts[{index}].name"
                )
            )
    return causes


def _check_changed(spec: Object, old: Object) -> list[Cause]:
    new, before = _frozen(spec), _frozen(old)
    if new == before:
        return []
    return [denied("spec", f"pod updates may not change fields other than {MUTABLE}")]


def _frozen(spec: Object) -> Object:
    """Return the part of a spec that may not change once the pod is there."""
    kept = {
        key: value
        for key, value in spec.items()
        if key
        not in (
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "nodeName",
            "schedulingGates",
        )
        and value not in ({}, [], None)
    }
    for part in ("containers", "initContainers"):
        if part in kept:
            kept[part] = [{k: v for k, v in c.items() if k != "image"} for c in kept[part]]
    return kept
