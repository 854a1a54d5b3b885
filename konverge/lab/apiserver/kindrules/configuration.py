"""Secrets, ConfigMaps, namespaces, nodes, leases, budgets, autoscalers and access rules."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from typing_extensions import override

from konverge.lab.apiserver.kindrules.base import Rules, check_unchanged, put_defaults
from konverge.lab.apiserver.statuses import Cause, denied, required, too_long, unsupported, wrong
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State

MAX_DATA = 1024 * 1024
"""Bytes of data in a Secret or ConfigMap."""
DATA_KEY = re.compile(r"^[-._a-zA-Z0-9]{1,253}$")
DATA_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
    "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
NEEDED = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
IMMUTABLE = "field is immutable when `immutable` is set"
RBAC = "rbac.authorization.k8s.io"


class SecretRules(Rules):
    """``stringData`` goes into ``data``; type and, once sealed, everything else stay."""

    @override
    def default(self, obj: Object) -> None:
        put_defaults(obj, type="Opaque")
        plain = obj.pop("stringData", None)
        if plain:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
            obj["data"] = {**(obj.get("data") or {}), **encoded}

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        data = obj.get("data") or {}
        causes = _check_keys(data)
        if sum(len(value) * 3 // 4 for value in data.values()) > MAX_DATA:
            causes.append(too_long("data", f"may not be more than {MAX_DATA} bytes"))
        for key in NEEDED.get(obj["type"], ()):
            if key not in data:
                causes.append(required(f"data[{key}]"))
        if old is not None:
            causes += check_unchanged("type", obj["type"], old.get("type"))
            causes += _check_sealed(obj, old, ("data",))
        return causes


class ConfigMapRules(Rules):
    """Like Secrets, in plain text."""

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
        causes = _check_keys({**data, **binary})
        total = sum(len(v.encode()) for v in data.values()) + sum(len(v) * 3 // 4 for v in binary.values())
        if total > MAX_DATA:
            causes.append(too_long("", f"may not be more than {MAX_DATA} bytes"))
        for key in data.keys() & binary.keys():
            causes.append(wrong(f"data[{key}]", key, "duplicate of key present in binaryData"))
        return causes + (_check_sealed(obj, old, ("data", "binaryData")) if old is not None else [])


def _check_keys(data: Object) -> list[Cause]:
    return [
        wrong(f"data[{key}]", key, DATA_KEY_TEXT) for key in data if not DATA_KEY.match(key) or key in (".", "..")
    ]


def _check_sealed(obj: Object, old: Object, parts: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    causes = [] if obj.get("immutable") else [denied("immutable", IMMUTABLE)]
    return causes + [denied(part, IMMUTABLE) for part in parts if (obj.get(part) or {}) != (old.get(part) or {})]


class NamespaceRules(Rules):
    """A namespace carries its name as a label and goes only when it is empty."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}

    @override
    def prepare_change(self, state: State, obj: Object, old: Object, subresource: str) -> None:
        if subresource != "finalize":
            obj["spec"] = old.get("spec") or {}

    @override
    def default(self, obj: Object) -> None:
        metadata = obj["metadata"]
        if metadata.get("name"):
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}


class NodeRules(Rules):
    """Kubelets create nodes together with their status."""

    keeps_status = True
    status_writes_labels = True

    @override
    def default(self, obj: Object) -> None:
        put_defaults(obj, spec={}, status={})


class LeaseRules(Rules):
    """Durations are positive."""

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        spec = obj.get("spec") or {}
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            causes.append(wrong("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            causes.append(wrong("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return causes


class DisruptionBudgetRules(Rules):
    """Either a minimum or a maximum."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        counts = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
        obj["status"] = dict.fromkeys(counts, 0)

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj.get("spec") or {}
        if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
            return [wrong("spec", spec, "minAvailable and maxUnavailable cannot be both set")]
        return []


class AutoscalerRules(Rules):
    """At least one replica, 80 % of the requested CPU where no metric is named."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}

    @override
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        put_defaults(spec, minReplicas=1)
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        causes = []
        most, least = spec.get("maxReplicas") or 0, spec.get("minReplicas") or 0
        if most < 1:
            causes.append(wrong("spec.maxReplicas", most, "must be greater than 0"))
        if least < 1:
            causes.append(wrong("spec.minReplicas", least, "must be greater than or equal to 1"))
        elif most < least:
            causes.append(wrong("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`"))
        return causes


class BindingRules(Rules):
    """What a binding grants may not change; whom it grants it to may."""

    @override
    def default(self, obj: Object) -> None:
        put_defaults(obj.setdefault("roleRef", {}), apiGroup=RBAC)
        for subject in obj.get("subjects") or ():
            if subject.get("kind") in ("User", "Group"):
                put_defaults(subject, apiGroup=RBAC)

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        reference = obj["roleRef"]
        if not reference.get("name"):
            causes.append(required("roleRef.name"))
        allowed = ("ClusterRole",) if obj["kind"] == "ClusterRoleBinding" else ("ClusterRole", "Role")
        if reference.get("kind") not in allowed:
            causes.append(unsupported("roleRef.kind", reference.get("kind") or "", allowed))
        if old is not None and reference != old.get("roleRef"):
            causes.append(wrong("roleRef", reference, "cannot change roleRef"))
        return causes


class EventRules(Rules):
    """Events show their empty times and sources."""

    @override
    def default(self, obj: Object) -> None:
        for name in ("firstTimestamp", "lastTimestamp", "eventTime"):
            obj.setdefault(name, None)
        put_defaults(obj, source={}, reportingComponent="", reportingInstance="", involvedObject={})


class VolumeClaimRules(Rules):
    """Claims start pending."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}

    @override
    def default(self, obj: Object) -> None:
        put_defaults(obj.setdefault("spec", {}), volumeMode="Filesystem")


class WebhookRules(Rules):
    """Webhooks fail closed, ten seconds, all objects."""

    @override
    def default(self, obj: Object) -> None:
        for hook in obj.get("webhooks") or ():
            put_defaults(
                hook,
                failurePolicy="Fail",
                matchPolicy="Equivalent",
                timeoutSeconds=10,
                namespaceSelector={},
                objectSelector={},
            )
            if obj["kind"] == "MutatingWebhookConfiguration":
                put_defaults(hook, reinvocationPolicy="Never")
            for rule in hook.get("rules") or ():
                put_defaults(rule, scope="*")
            service = (hook.get("clientConfig") or {}).get("service")
            if service is not None:
                put_defaults(service, port=443)
