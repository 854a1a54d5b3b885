"""Checks of room: nodes, quotas, disruption budgets, autoscalers."""

from __future__ import annotations

from fnmatch import fnmatch

from konverge.checks.legacy import read_release
from konverge.checks.quantities import parse_quantity
from konverge.checks.registry import Answer, Severity, Stage, check, failed, failed_if, passed, skipped
from konverge.checks.scene import Object, Scene
from konverge.checks.services import read_fleet, require_deployment, require_fleet

CATEGORY = "Capacity and disruptions"


def _usable(scene: Scene) -> list[Object]:
    return [
        node
        for node in scene.list("nodes")
        if not node.get("spec", {}).get("unschedulable")
        and any(c["type"] == "Ready" and c["status"] == "True" for c in node.get("status", {}).get("conditions", ()))
    ]


@check(
    "nodes-ready",
    CATEGORY,
    Severity.WARNING,
    "Pods can be scheduled on more than one node",
    fix="kubectl get nodes: uncordon or repair them. On a single node an outage of it is one of the fleet.",
)
def nodes_ready(scene: Scene) -> Answer:
    """At least two nodes are ready and schedulable."""
    count, total = len(_usable(scene)), len(scene.list("nodes"))
    text = f"{count} of {total} nodes take pods"
    return passed(text) if count > 1 else failed(text)


def _pods_wanted(scene: Scene) -> int:
    release = read_release(scene)
    fleet = read_fleet(scene)
    return release.replicas if release else fleet.spec.replicas if fleet else 3


@check(
    "room-for-pods",
    CATEGORY,
    Severity.ERROR,
    "The nodes have room for a second set of proxies",
    fix="Add a node or raise maxPods: during a migration both sets of proxies run side by side.",
    stage=Stage.BEFORE,
)
def room_for_pods(scene: Scene) -> Answer:
    """The pods that may still be put on the nodes are more than the proxies that are about to come."""
    wanted = _pods_wanted(scene) + 1
    running: dict[str, int] = {}
    for pod in scene.list("pods/all"):
        name = pod.get("spec", {}).get("nodeName", "")
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            running[name] = running.get(name, 0) + 1
    free = sum(max(0, _most_pods(node) - running.get(node["metadata"]["name"], 0)) for node in _usable(scene))
    text = f"{wanted} pods to come, room for {free}"
    return passed(text) if free >= wanted else failed(text)


def _most_pods(node: Object) -> int:
    return int(parse_quantity(node["status"].get("allocatable", {}).get("pods", "110")))


@check(
    "room-in-quota",
    CATEGORY,
    Severity.ERROR,
    "The quota of the namespace has room for a second set of proxies",
    fix="Raise the ResourceQuota for the time of the migration.",
    stage=Stage.BEFORE,
)
def room_in_quota(scene: Scene) -> Answer:
    """No ResourceQuota on pods would be exceeded."""
    wanted = _pods_wanted(scene) + 1
    short = []
    for quota in scene.list("resourcequotas"):
        status = quota.get("status", {})
        for name in ("pods", "count/pods"):
            if name in status.get("hard", {}):
                left = parse_quantity(status["hard"][name]) - parse_quantity(status.get("used", {}).get(name, "0"))
                if left < wanted:
                    short.append(
                        f"ResourceQuota {quota['metadata']['name']} leaves {left:g} pods, {wanted} are to come"
                    )
    return failed_if(short, "nothing is exceeded")


@check(
    "disruption-budget",
    CATEGORY,
    Severity.WARNING,
    "A disruption budget guards the proxies, and lets one go",
    fix="maxUnavailable: 1 is right; a budget that lets nobody go blocks the drain of a node for ever.",
    stage=Stage.AFTER,
)
def disruption_budget(scene: Scene) -> Answer:
    """A PodDisruptionBudget selects the proxies, and allows a disruption while all are healthy."""
    fleet, deployment = require_fleet(scene), require_deployment(scene)
    labels = deployment["spec"]["template"]["metadata"].get("labels") or {}
    budgets = [
        body
        for body in scene.list("poddisruptionbudgets")
        if (match := body["spec"].get("selector", {}).get("matchLabels")) and match.items() <= labels.items()
    ]
    if not budgets:
        return failed(f"no PodDisruptionBudget selects the pods of {fleet.deployment}")
    whole = deployment.get("status", {}).get("readyReplicas", 0) >= deployment["spec"].get("replicas", 1)
    stuck = [
        f"PodDisruptionBudget {body['metadata']['name']} lets no pod go"
        for body in budgets
        if whole and body.get("status", {}).get("disruptionsAllowed", 1) < 1
    ]
    return failed_if(stuck, ", ".join(body["metadata"]["name"] for body in budgets))


@check(
    "autoscaler",
    CATEGORY,
    Severity.INFO,
    "The autoscaler of the proxies has room",
    fix="Raise maxReplicas of the HorizontalPodAutoscaler.",
    stage=Stage.AFTER,
)
def autoscaler(scene: Scene) -> Answer:
    """The HPA of the proxies is not at its upper limit."""
    fleet = require_fleet(scene)
    mine = [
        body
        for body in scene.list("horizontalpodautoscalers")
        if body["spec"]["scaleTargetRef"].get("name") == fleet.deployment
    ]
    if not mine:
        return skipped("none")
    full = [
        f"HorizontalPodAutoscaler {body['metadata']['name']} is at its maximum of {body['spec']['maxReplicas']}"
        for body in mine
        if body.get("status", {}).get("currentReplicas", 0) >= body["spec"]["maxReplicas"]
    ]
    return failed_if(full, mine[0]["metadata"]["name"])


@check(
    "spread",
    CATEGORY,
    Severity.WARNING,
    "The proxies are spread over nodes",
    fix="Anti-affinity is preferred by default; gateway.antiAffinity: required enforces it.",
    stage=Stage.AFTER,
)
def spread(scene: Scene) -> Answer:
    """Two or more proxies do not all share one node while there are others."""
    require_fleet(scene)
    nodes = [status.node for status in scene.instances.get().values() if status.node]
    if len(nodes) < 2 or len(_usable(scene)) < 2:
        return skipped("one proxy or one node")
    used = sorted(set(nodes))
    return failed(f"all {len(nodes)} proxies run on {used[0]}") if len(used) == 1 else passed(f"{len(used)} nodes")


@check(
    "proxy-storage",
    CATEGORY,
    Severity.WARNING,
    "The volume of a proxy is large enough for its configuration",
    fix="Kong maps up to 2 GiB in its prefix (LMDB): a pod over its sizeLimit is evicted. Set it to 2Gi or more.",
    stage=Stage.AFTER,
)
def proxy_storage(scene: Scene) -> Answer:
    """The emptyDir of the prefix is at least 64 times the configuration, or 2 GiB."""
    fleet, deployment = require_fleet(scene), require_deployment(scene)
    small = [
        f"volume {volume['name']} of {fleet.deployment} is limited to {limit}"
        for volume in deployment["spec"]["template"]["spec"].get("volumes") or ()
        if fnmatch(volume["name"], "*prefix*")
        and (limit := (volume.get("emptyDir") or {}).get("sizeLimit"))
        and parse_quantity(limit) < 2 * 1024**3
    ]
    return failed_if(small, "large enough")
