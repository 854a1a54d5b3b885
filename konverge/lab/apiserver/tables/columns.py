"""Printer columns of the built-in kinds that people look at; all others show name and age."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from konverge.lab.apiserver.clock import parse_time
from konverge.lab.apiserver.store import Object

NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``wide`` ones are shown with ``-o wide`` only. ``read`` gets the object and the time."""

    name: str
    read: Callable[[Object, float], Any]
    wide: bool = False
    type: str = "string"
    format: str = ""
    description: str = ""


def get(obj: Any, path: str, default: Any = None) -> Any:
    """Return the value under a dotted path."""
    for step in path.split("."):
        obj = obj.get(step) if isinstance(obj, dict) else None
    return default if obj is None else obj


def field(path: str, default: Any = NONE) -> Callable[[Object, float], Any]:
    """Return a reader of one field."""
    return lambda obj, _: get(obj, path, default)


def show_age(obj: Object, now: float) -> str:
    """Return how long ago the object was created."""
    stamp = obj["metadata"].get("creationTimestamp")
    return show_span(now - parse_time(stamp).timestamp()) if stamp else "<unknown>"


def show_span(seconds: float) -> str:
    """Return a span as kubectl shows it: 59s, 5m3s, 3h12m, 2d4h, 12d, 2y30d."""
    total = max(0, int(seconds))
    if total < 120:
        return f"{total}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        rest = total % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days < 2920 and days % 365 else f"{days // 365}y"


def count(path: str) -> Callable[[Object, float], Any]:
    """Return a reader that counts the entries under a path."""
    return lambda obj, _: len(get(obj, path, ()))


def join(values: Sequence[Any], limit: int = 0) -> str:
    """Return values joined by commas; past ``limit`` only how many more there are."""
    shown = [str(value) for value in values]
    if limit and len(shown) > limit:
        return ",".join(shown[:limit]) + f" + {len(shown) - limit} more..."
    return ",".join(shown) or NONE


def show_selector(path: str) -> Callable[[Object, float], Any]:
    """Return a reader of a label selector or a plain map."""

    def read(obj: Object, _now: float) -> str:
        selector = get(obj, path) or {}
        labels = (
            selector.get("matchLabels", {})
            if "matchLabels" in selector or "matchExpressions" in selector
            else selector
        )
        return join([f"{key}={value}" for key, value in sorted(labels.items())])

    return read


def _containers(part: str, path: str) -> Callable[[Object, float], Any]:
    return lambda obj, _: join([c.get(part, "") for c in get(obj, path, ())])


AGE = Column("Age", show_age)
NAME = Column("Name", lambda obj, _: obj["metadata"]["name"], format="name")


def show_pod_status(pod: Object) -> str:
    """Return the word that kubectl shows for a pod."""
    status = pod.get("status") or {}
    word = status.get("reason") or status.get("phase") or "Unknown"
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended and ended.get("exitCode") == 0:
            continue
        if ended:
            word = "Init:" + (ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
        elif waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            word = "Init:" + waiting["reason"]
        else:
            word = f"Init:{index}/{len(get(pod, 'spec.initContainers', ()))}"
        return _with_deletion(pod, word)
    running = False
    for container in reversed(status.get("containerStatuses") or []):
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if waiting and waiting.get("reason"):
            word = waiting["reason"]
        elif ended:
            word = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
        elif container.get("ready") and state.get("running") is not None:
            running = True
    if word == "Completed" and running:
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
        word = "Running" if ready else "NotReady"
    return _with_deletion(pod, word)


def _with_deletion(pod: Object, word: str) -> str:
    return "Terminating" if pod["metadata"].get("deletionTimestamp") else word


def _pod_ready(pod: Object, _now: float) -> str:
    statuses = get(pod, "status.containerStatuses", ())
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(get(pod, 'spec.containers', ()))}"


def _pod_restarts(pod: Object, now: float) -> str:
    statuses = get(pod, "status.containerStatuses", ())
    total = sum(s.get("restartCount") or 0 for s in statuses)
    ends = [get(s, "lastState.terminated.finishedAt") for s in statuses]
    last = max((parse_time(end).timestamp() for end in ends if end), default=0.0)
    return f"{total} ({show_span(now - last)} ago)" if total and last else str(total)


def _readiness_gates(pod: Object, _now: float) -> str:
    gates = get(pod, "spec.readinessGates", ())
    if not gates:
        return NONE
    true = {c["type"] for c in get(pod, "status.conditions", ()) if c.get("status") == "True"}
    return f"{sum(gate['conditionType'] in true for gate in gates)}/{len(gates)}"


POD = (
    NAME,
    Column("Ready", _pod_ready),
    Column("Status", lambda pod, _: show_pod_status(pod)),
    Column("Restarts", _pod_restarts),
    AGE,
    Column("IP", field("status.podIP"), wide=True),
    Column("Node", field("spec.nodeName"), wide=True),
    Column("Nominated Node", field("status.nominatedNodeName"), wide=True),
    Column("Readiness Gates", _readiness_gates, wide=True),
)


def _ready_of(obj: Object, _now: float) -> str:
    return f"{get(obj, 'status.readyReplicas', 0)}/{get(obj, 'spec.replicas', 0)}"


IMAGES = (
    Column("Containers", _containers("name", "spec.template.spec.containers"), wide=True),
    Column("Images", _containers("image", "spec.template.spec.containers"), wide=True),
)
SELECTOR = Column("Selector", show_selector("spec.selector"), wide=True)
DEPLOYMENT = (
    NAME,
    Column("Ready", _ready_of),
    Column("Up-to-date", field("status.updatedReplicas", 0)),
    Column("Available", field("status.availableReplicas", 0)),
    AGE,
    *IMAGES,
    SELECTOR,
)
REPLICA_SET = (
    NAME,
    Column("Desired", field("spec.replicas", 0), type="integer"),
    Column("Current", field("status.replicas", 0), type="integer"),
    Column("Ready", field("status.readyReplicas", 0), type="integer"),
    AGE,
    *IMAGES,
    SELECTOR,
)
STATEFUL_SET = (NAME, Column("Ready", _ready_of), AGE, *IMAGES)
DAEMON_SET = (
    NAME,
    Column("Desired", field("status.desiredNumberScheduled", 0), type="integer"),
    Column("Current", field("status.currentNumberScheduled", 0), type="integer"),
    Column("Ready", field("status.numberReady", 0), type="integer"),
    Column("Up-to-date", field("status.updatedNumberScheduled", 0), type="integer"),
    Column("Available", field("status.numberAvailable", 0), type="integer"),
    Column("Node Selector", show_selector("spec.template.spec.nodeSelector")),
    AGE,
    *IMAGES,
    SELECTOR,
)


def _external(service: Object, _now: float) -> str:
    spec = service.get("spec") or {}
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName"))
    addresses = [i.get("ip") or i.get("hostname") for i in get(service, "status.loadBalancer.ingress", ())]
    addresses += spec.get("externalIPs") or []
    if not addresses and spec.get("type") == "LoadBalancer":
        return "<pending>"
    return join(addresses)


def _ports(service: Object, _now: float) -> str:
    return join(
        [
            f"{port['port']}:{port['nodePort']}/{port.get('protocol')}"
            if port.get("nodePort")
            else f"{port['port']}/{port.get('protocol')}"
            for port in get(service, "spec.ports", ())
        ]
    )


SERVICE = (
    NAME,
    Column("Type", field("spec.type")),
    Column("Cluster-IP", field("spec.clusterIP")),
    Column("External-IP", _external),
    Column("Port(s)", _ports),
    AGE,
    Column("Selector", show_selector("spec.selector"), wide=True),
)


def _slice_ports(piece: Object, _now: float) -> str:
    return join([port.get("port") or "*" for port in piece.get("ports") or ()] or ["<unset>"], 3)


def _slice_addresses(piece: Object, _now: float) -> str:
    found = [address for endpoint in piece.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return join(found, 3) if found else "<unset>"


def _endpoints(obj: Object, _now: float) -> str:
    found = [
        f"{address['ip']}:{port['port']}"
        for subset in obj.get("subsets") or ()
        for address in subset.get("addresses") or ()
        for port in subset.get("ports") or ()
    ]
    return join(found, 3)


def _hosts(ingress: Object, _now: float) -> str:
    hosts = [rule["host"] for rule in get(ingress, "spec.rules", ()) if rule.get("host")]
    return join(hosts, 3) if hosts else "*"


def _ingress_address(ingress: Object, _now: float) -> str:
    found = [i.get("ip") or i.get("hostname") for i in get(ingress, "status.loadBalancer.ingress", ())]
    return ",".join(found)


def _node_status(node: Object, _now: float) -> str:
    conditions = {c["type"]: c["status"] for c in get(node, "status.conditions", ())}
    words = ["Ready" if conditions.get("Ready") == "True" else "NotReady" if "Ready" in conditions else "Unknown"]
    return ",".join(words + (["SchedulingDisabled"] if get(node, "spec.unschedulable") else []))


def _roles(node: Object, _now: float) -> str:
    prefix = "node-role.kubernetes.io/"
    return join([key.removeprefix(prefix) for key in get(node, "metadata.labels", {}) if key.startswith(prefix)])


def _node_address(node: Object, _now: float) -> str:
    found = [a["address"] for a in get(node, "status.addresses", ()) if a["type"] == "InternalIP"]
    return found[0] if found else NONE


def _since(path: str) -> Callable[[Object, float], Any]:
    def read(obj: Object, now: float) -> str:
        stamp = get(obj, path)
        return show_span(now - parse_time(stamp).timestamp()) if stamp else "<unknown>"

    return read


def _last_seen(event: Object, now: float) -> str:
    stamp = get(event, "series.lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return show_span(now - parse_time(stamp).timestamp()) if stamp else show_age(event, now)


def _first_seen(event: Object, now: float) -> str:
    stamp = event.get("firstTimestamp") or event.get("eventTime")
    return show_span(now - parse_time(stamp).timestamp()) if stamp else show_age(event, now)


def _event_source(event: Object, _now: float) -> str:
    source = event.get("source") or {}
    parts = [source.get("component") or event.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(part for part in parts if part)


def _involved(event: Object, _now: float) -> str:
    reference = event.get("involvedObject") or {}
    return f"{(reference.get('kind') or '').lower()}/{reference.get('name')}"


def _metrics(scaler: Object, _now: float) -> str:
    shown = []
    for metric in get(scaler, "spec.metrics", ()):
        kind = metric.get("type", "")
        body = metric.get(kind[:1].lower() + kind[1:]) or {}
        target = body.get("target") or {}
        wanted = (
            f"{target['averageUtilization']}%"
            if "averageUtilization" in target
            else target.get("averageValue") or target.get("value")
        )
        shown.append(f"{body.get('name', kind)}: <unknown>/{wanted}")
    return ", ".join(shown) or NONE


def _role_of(binding: Object, _now: float) -> str:
    reference = binding.get("roleRef") or {}
    return f"{reference.get('kind')}/{reference.get('name')}"


def _job_status(job: Object, _now: float) -> str:
    for condition in get(job, "status.conditions", ()):
        if condition.get("status") == "True" and condition.get("type") in ("Complete", "Failed"):
            return str(condition["type"])
    return "Running"


COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": POD,
    "Deployment": DEPLOYMENT,
    "ReplicaSet": REPLICA_SET,
    "StatefulSet": STATEFUL_SET,
    "DaemonSet": DAEMON_SET,
    "Service": SERVICE,
    "EndpointSlice": (
        NAME,
        Column("AddressType", lambda obj, _: obj.get("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_addresses),
        AGE,
    ),
    "Endpoints": (NAME, Column("Endpoints", _endpoints), AGE),
    "Ingress": (
        NAME,
        Column("Class", field("spec.ingressClassName")),
        Column("Hosts", _hosts),
        Column("Address", _ingress_address),
        Column("Ports", lambda obj, _: "80, 443" if get(obj, "spec.tls") else "80"),
        AGE,
    ),
    "IngressClass": (
        NAME,
        Column("Controller", field("spec.controller")),
        Column("Parameters", lambda obj, _: get(obj, "spec.parameters.name", NONE)),
        AGE,
    ),
    "ConfigMap": (
        NAME,
        Column("Data", lambda o, _: len(o.get("data") or {}) + len(o.get("binaryData") or {})),
        AGE,
    ),
    "Secret": (NAME, Column("Type", lambda o, _: o.get("type")), Column("Data", count("data")), AGE),
    "Namespace": (NAME, Column("Status", field("status.phase")), AGE),
    "Node": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _roles),
        AGE,
        Column("Version", field("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", _node_address, wide=True),
        Column("External-IP", lambda *_: NONE, wide=True),
        Column("OS-Image", field("status.nodeInfo.osImage", "<unknown>"), wide=True),
        Column("Kernel-Version", field("status.nodeInfo.kernelVersion", "<unknown>"), wide=True),
        Column("Container-Runtime", field("status.nodeInfo.containerRuntimeVersion", "<unknown>"), wide=True),
    ),
    "Event": (
        Column("Last Seen", _last_seen),
        Column("Type", lambda o, _: o.get("type", "")),
        Column("Reason", lambda o, _: o.get("reason", "")),
        Column("Object", _involved),
        Column("Subobject", field("involvedObject.fieldPath", ""), wide=True),
        Column("Source", _event_source, wide=True),
        Column("Message", lambda o, _: (o.get("message") or "").strip()),
        Column("First Seen", _first_seen, wide=True),
        Column("Count", lambda o, _: get(o, "series.count") or o.get("count") or 1, wide=True),
        Column("Name", lambda o, _: o["metadata"]["name"], wide=True, format="name"),
    ),
    "Lease": (NAME, Column("Holder", field("spec.holderIdentity", "")), AGE),
    "PodDisruptionBudget": (
        NAME,
        Column("Min Available", field("spec.minAvailable", "N/A")),
        Column("Max Unavailable", field("spec.maxUnavailable", "N/A")),
        Column("Allowed Disruptions", field("status.disruptionsAllowed", 0), type="integer"),
        AGE,
    ),
    "HorizontalPodAutoscaler": (
        NAME,
        Column(
            "Reference", lambda o, _: f"{get(o, 'spec.scaleTargetRef.kind')}/{get(o, 'spec.scaleTargetRef.name')}"
        ),
        Column("Targets", _metrics),
        Column("MinPods", field("spec.minReplicas", "<unset>")),
        Column("MaxPods", field("spec.maxReplicas", 0)),
        Column("Replicas", field("status.currentReplicas", 0)),
        AGE,
    ),
    "Job": (
        NAME,
        Column("Status", _job_status),
        Column("Completions", lambda o, _: f"{get(o, 'status.succeeded', 0)}/{get(o, 'spec.completions', 1)}"),
        Column("Duration", _since("status.startTime")),
        AGE,
    ),
    "CronJob": (
        NAME,
        Column("Schedule", field("spec.schedule")),
        Column("Timezone", field("spec.timeZone")),
        Column("Suspend", lambda o, _: "True" if get(o, "spec.suspend") else "False"),
        Column("Active", count("status.active"), type="integer"),
        Column(
            "Last Schedule",
            lambda o, now: _since("status.lastScheduleTime")(o, now) if get(o, "status.lastScheduleTime") else NONE,
        ),
        AGE,
    ),
    "RoleBinding": (NAME, Column("Role", _role_of), AGE),
    "ClusterRoleBinding": (NAME, Column("Role", _role_of), AGE),
    "Role": (NAME, Column("Created At", field("metadata.creationTimestamp"))),
    "ClusterRole": (NAME, Column("Created At", field("metadata.creationTimestamp"))),
    "CustomResourceDefinition": (NAME, Column("Created At", field("metadata.creationTimestamp"))),
}
