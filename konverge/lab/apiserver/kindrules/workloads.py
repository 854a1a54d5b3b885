"""Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs and CronJobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from konverge.lab.apiserver.kindrules.base import Rules, check_unchanged, put_defaults
from konverge.lab.apiserver.kindrules.pods import check_pod_spec, default_pod_spec
from konverge.lab.apiserver.selecting import select_labels
from konverge.lab.apiserver.statuses import Cause, required, unsupported, wrong
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State

MISMATCH = "`selector` does not match template `labels`"


class WorkloadRules(Rules):
    """Kinds with a selector and a pod template; the selector may not change."""

    selector_free = False

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj.setdefault("spec", {})

    @override
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        self.default_spec(spec)
        default_template(spec)

    def default_spec(self, spec: Object) -> None:
        """Fill the defaults of the kind itself."""
        put_defaults(spec, replicas=1)

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        causes = [] if self.selector_free else _check_selector(spec)
        if (spec.get("replicas") or 0) < 0:
            causes.append(wrong("spec.replicas", spec["replicas"], "must be greater than or equal to 0"))
        causes += check_pod_spec((spec.get("template") or {}).get("spec") or {}, "spec.template.spec")
        causes += self.check_template(spec)
        if old is not None:
            causes += check_unchanged("spec.selector", spec.get("selector"), old["spec"].get("selector"))
        return causes

    def check_template(self, spec: Object) -> list[Cause]:
        """Return what is wrong with the template for this kind: its pods restart always."""
        policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
        if policy == "Always" or policy is None:
            return []
        return [unsupported("spec.template.spec.restartPolicy", policy, ("Always",))]


def default_template(spec: Object) -> None:
    """Fill the defaults of a pod template."""
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def _check_selector(spec: Object) -> list[Cause]:
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector is None:
        return [required("spec.selector"), *_mismatch(labels)]
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return [wrong("spec.selector", selector, "empty selector is invalid for deployment")]
    matches = select_labels(selector)
    return [] if matches({"metadata": {"labels": labels}}) else _mismatch(labels)


def _mismatch(labels: dict[str, str]) -> list[Cause]:
    return [wrong("spec.template.metadata.labels", labels, MISMATCH)]


class DeploymentRules(WorkloadRules):
    """Rolling updates by quarters, ten minutes to make progress."""

    @override
    def default_spec(self, spec: Object) -> None:
        put_defaults(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
        strategy = spec.setdefault("strategy", {})
        put_defaults(strategy, type="RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            put_defaults(strategy["rollingUpdate"], maxUnavailable="25%", maxSurge="25%")

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = super().check(state, obj, old)
        strategy = obj["spec"]["strategy"]
        if strategy["type"] not in ("Recreate", "RollingUpdate"):
            causes.append(unsupported("spec.strategy.type", strategy["type"], ("Recreate", "RollingUpdate")))
        if strategy["type"] == "Recreate" and strategy.get("rollingUpdate"):
            text = "may not be specified when strategy `type` is 'Recreate'"
            causes.append(Cause("FieldValueForbidden", f"Forbidden: {text}", "spec.strategy.rollingUpdate"))
        rolling = strategy.get("rollingUpdate") or {}
        if all(str(rolling.get(name)) in ("0", "0%") for name in ("maxUnavailable", "maxSurge")):
            text = "may not be 0 when `maxSurge` is 0"
            causes.append(wrong("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"], text))
        return causes


class ReplicaSetRules(WorkloadRules):
    """A ReplicaSet without labels takes those of its template; its status starts at zero."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        super().prepare_new(state, obj)
        obj["status"] = {"replicas": 0}


class StatefulSetRules(WorkloadRules):
    """Pods one after the other."""

    @override
    def default_spec(self, spec: Object) -> None:
        put_defaults(spec, replicas=1, revisionHistoryLimit=10, podManagementPolicy="OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        put_defaults(strategy, type="RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            put_defaults(strategy["rollingUpdate"], partition=0)
        put_defaults(spec, persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"})

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        super().prepare_new(state, obj)
        obj["status"] = {"replicas": 0, "availableReplicas": 0}


class DaemonSetRules(WorkloadRules):
    """One pod per node."""

    @override
    def default_spec(self, spec: Object) -> None:
        put_defaults(spec, revisionHistoryLimit=10)
        strategy = spec.setdefault("updateStrategy", {})
        put_defaults(strategy, type="RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
            put_defaults(strategy["rollingUpdate"], maxUnavailable=1, maxSurge=0)

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        super().prepare_new(state, obj)
        counts = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
        obj["status"] = dict.fromkeys(counts, 0)


class JobRules(WorkloadRules):
    """Jobs select their pods by their own uid."""

    selector_free = True

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        super().prepare_new(state, obj)
        obj["status"] = {}
        spec, uid = obj["spec"], obj["metadata"]["uid"]
        if spec.get("manualSelector"):
            return
        labels = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": obj["metadata"].get("name", ""),
        }
        labels |= {"controller-uid": uid, "job-name": obj["metadata"].get("name", "")}
        metadata = spec.setdefault("template", {}).setdefault("metadata", {})
        metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}

    @override
    def default_spec(self, spec: Object) -> None:
        if spec.get("completions") is None and spec.get("parallelism") is None:
            put_defaults(spec, completions=1, parallelism=1)
        put_defaults(
            spec,
            parallelism=1,
            backoffLimit=6,
            completionMode="NonIndexed",
            suspend=False,
            manualSelector=False,
            podReplacementPolicy="TerminatingOrFailed",
        )

    @override
    def check_template(self, spec: Object) -> list[Cause]:
        policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
        if policy in ("OnFailure", "Never"):
            return []
        return [unsupported("spec.template.spec.restartPolicy", policy, ("OnFailure", "Never"))]


class CronJobRules(Rules):
    """Templates of jobs with a schedule."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj["status"] = {}

    @override
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        put_defaults(
            spec, concurrencyPolicy="Allow", suspend=False, successfulJobsHistoryLimit=3, failedJobsHistoryLimit=1
        )
        job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
        spec["jobTemplate"].setdefault("metadata", {})
        default_template(job)

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        if not spec.get("schedule"):
            return [required("spec.schedule")]
        if len(spec["schedule"].split()) != 5 and not spec["schedule"].startswith("@"):
            return [wrong("spec.schedule", spec["schedule"], "Expected exactly 5 fields")]
        return []
