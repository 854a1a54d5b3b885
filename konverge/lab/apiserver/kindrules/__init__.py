"""What the built-in kinds do beyond storage: defaults, checks and numbers that are handed out."""

from __future__ import annotations

from typing_extensions import override

from konverge.lab.apiserver.kindrules import configuration, pods, services, workloads
from konverge.lab.apiserver.kindrules.base import Rules
from konverge.lab.apiserver.kindrules.definitions import DefinitionRules
from konverge.lab.apiserver.kindrules.required import check_required, fill_required
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import Cause
from konverge.lab.apiserver.store import Object

PLAIN = Rules()
RULES: dict[str, Rules] = {
    "Pod": pods.PodRules(),
    "Deployment": workloads.DeploymentRules(),
    "ReplicaSet": workloads.ReplicaSetRules(),
    "StatefulSet": workloads.StatefulSetRules(),
    "DaemonSet": workloads.DaemonSetRules(),
    "Job": workloads.JobRules(),
    "CronJob": workloads.CronJobRules(),
    "Service": services.ServiceRules(),
    "EndpointSlice": services.EndpointSliceRules(),
    "Endpoints": services.EndpointsRules(),
    "Ingress": services.IngressRules(),
    "IngressClass": services.IngressClassRules(),
    "Secret": configuration.SecretRules(),
    "ConfigMap": configuration.ConfigMapRules(),
    "Namespace": configuration.NamespaceRules(),
    "Node": configuration.NodeRules(),
    "Event": configuration.EventRules(),
    "Lease": configuration.LeaseRules(),
    "PodDisruptionBudget": configuration.DisruptionBudgetRules(),
    "HorizontalPodAutoscaler": configuration.AutoscalerRules(),
    "RoleBinding": configuration.BindingRules(),
    "ClusterRoleBinding": configuration.BindingRules(),
    "PersistentVolumeClaim": configuration.VolumeClaimRules(),
    "ValidatingWebhookConfiguration": configuration.WebhookRules(),
    "MutatingWebhookConfiguration": configuration.WebhookRules(),
    "CustomResourceDefinition": DefinitionRules(),
}


class _Typed(Rules):
    """Wraps the rules of a built-in kind with the checks that its type implies."""

    def __init__(self, kind: ResourceKind, inner: Rules) -> None:
        assert kind.node is not None
        self._node = kind.node
        self._inner = inner
        self.keeps_status = inner.keeps_status
        self.status_writes_labels = inner.status_writes_labels
        self.prepare_new = inner.prepare_new  # type: ignore[method-assign]
        self.prepare_change = inner.prepare_change  # type: ignore[method-assign]
        self.commit = inner.commit  # type: ignore[method-assign]

    @override
    def default(self, obj: Object) -> None:
        self._inner.default(obj)
        status = self._node.child("status")
        if status is not None:
            obj["status"] = obj.get("status") or {}
            fill_required(status, obj["status"])

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        return check_required(self._node, obj) + self._inner.check(state, obj, old)


_CACHE: dict[str, Rules] = {}


def rules_of(kind: ResourceKind) -> Rules:
    """Return the rules of a kind."""
    if kind.custom is not None or kind.node is None:
        return PLAIN
    rules = _CACHE.get(kind.kind)
    if rules is None:
        rules = _Typed(kind, RULES.get(kind.kind, PLAIN))
        _CACHE[kind.kind] = rules
    return rules
