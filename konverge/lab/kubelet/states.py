"""Pure: from what is known about a pod's containers to the status that the API server is told.

No I/O and no clock: times come in. The kubelet owns phase, addresses, container statuses and the conditions of
:data:`OWN_CONDITIONS`; conditions of others (readiness gates) are read and never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

Object = dict[str, Any]

INITIALIZED, READY, CONTAINERS_READY = "Initialized", "Ready", "ContainersReady"
SCHEDULED, SANDBOX = "PodScheduled", "PodReadyToStartContainers"
OWN_CONDITIONS = (SANDBOX, INITIALIZED, READY, CONTAINERS_READY, SCHEDULED)


class Stage(Enum):
    """Where a container is; the three forms of ``state`` in its status."""

    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


@dataclass(slots=True)
class ContainerRecord:
    """What is known about one container of a pod."""

    name: str
    image: str
    image_id: str = ""
    stage: Stage = Stage.WAITING
    reason: str = "ContainerCreating"
    message: str = ""
    container_id: str = ""
    started_at: str = ""
    last: Object = field(default_factory=dict)
    """The ``terminated`` state of the run before, or {}."""
    terminated: Object = field(default_factory=dict)
    restarts: int = 0
    started: bool = False
    """Running, and the startup probe (where there is one) has passed."""
    probed_ready: bool = False
    """What the readiness probe says; True from the start where there is none."""

    @property
    def ready(self) -> bool:
        """Whether the container counts as ready."""
        return self.stage is Stage.RUNNING and self.started and self.probed_ready

    def wait(self, reason: str, message: str = "") -> bool:
        """Go to waiting; return whether that is news."""
        if (self.stage, self.reason, self.message) == (Stage.WAITING, reason, message):
            return False
        if self.stage is Stage.TERMINATED:
            self.last = self.terminated
        self.stage, self.reason, self.message = Stage.WAITING, reason, message
        self.started = self.probed_ready = False
        return True

    def run(self, container_id: str, now: str, started: bool, ready: bool) -> None:
        """Go to running."""
        if self.stage is Stage.TERMINATED:
            self.last = self.terminated
        self.stage, self.container_id, self.started_at = Stage.RUNNING, container_id, now
        self.started, self.probed_ready = started, ready

    def terminate(self, code: int, reason: str, message: str, now: str) -> None:
        """Go to terminated with an exit code; 128 + n stands for signal n."""
        self.terminated = {
            "exitCode": code,
            "reason": reason,
            "startedAt": self.started_at or now,
            "finishedAt": now,
            "containerID": self.container_id,
            **({"message": message} if message else {}),
        }
        self.stage = Stage.TERMINATED
        self.started = self.probed_ready = False

    def status(self) -> Object:
        """Return the ContainerStatus."""
        state: Object = {"startedAt": self.started_at}
        if self.stage is Stage.WAITING:
            state = {"reason": self.reason, **({"message": self.message} if self.message else {})}
        elif self.stage is Stage.TERMINATED:
            state = dict(self.terminated)
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "restartCount": self.restarts,
            "ready": self.ready,
            "started": self.started,
            "state": {self.stage.value: state},
            "lastState": {"terminated": dict(self.last)} if self.last else {},
            **({"containerID": self.container_id} if self.container_id else {}),
        }


@dataclass(frozen=True, slots=True)
class PodFacts:
    """Everything that the status of a pod follows from."""

    pod: Object
    init: Sequence[ContainerRecord]
    containers: Sequence[ContainerRecord]
    now: str
    start_time: str
    host_ip: str
    pod_ip: str = ""
    initialized: bool = False
    finished: bool = False
    """Every container has ended for good, because the pod is deleted or its restart policy says so."""


def pod_phase(facts: PodFacts) -> str:
    """Return the phase as the kubelet computes it."""
    if facts.finished:
        codes = [record.terminated.get("exitCode", 137) for record in facts.containers]
        return "Succeeded" if codes and not any(codes) else "Failed"
    if not facts.initialized:
        return "Pending"
    ran = [record for record in facts.containers if record.stage is not Stage.WAITING or record.last]
    return "Running" if len(ran) == len(facts.containers) else "Pending"


def pod_status(facts: PodFacts) -> Object:
    """Return the part of the status that the kubelet owns, fit for a strategic merge patch."""
    status: Object = {
        "phase": pod_phase(facts),
        "hostIP": facts.host_ip,
        "hostIPs": [{"ip": facts.host_ip}],
        "startTime": facts.start_time,
        "conditions": _conditions(facts),
        "containerStatuses": [record.status() for record in facts.containers],
    }
    if facts.init:
        status["initContainerStatuses"] = [_init_status(record) for record in facts.init]
    if facts.pod_ip:
        status["podIP"] = facts.pod_ip
        status["podIPs"] = [{"ip": facts.pod_ip}]
    qos = facts.pod.get("status", {}).get("qosClass")
    return {**status, "qosClass": qos or "BestEffort"}


def _init_status(record: ContainerRecord) -> Object:
    # An init container counts as ready once it has succeeded; one that goes on (a sidecar) while it is ready.
    return {**record.status(), "ready": record.ready or _init_done(record)}


def _conditions(facts: PodFacts) -> list[Object]:
    before = {item["type"]: item for item in facts.pod.get("status", {}).get("conditions") or ()}
    containers = _containers_ready(facts)
    wanted = (
        _condition(SANDBOX, bool(facts.pod_ip) and not facts.finished),
        _initialized(facts),
        _ready(facts, containers, before),
        containers,
        _condition(SCHEDULED, True),
    )
    return [_dated(item, before.get(item["type"]), facts.now) for item in wanted]


def _condition(kind: str, value: bool, reason: str = "", message: str = "") -> Object:
    # Reason and message are always written: a merge patch would else keep the old ones.
    return {
        "type": kind,
        "status": "True" if value else "False",
        "reason": reason or None,
        "message": message or None,
    }


def _dated(item: Object, before: Object | None, now: str) -> Object:
    changed = before is None or before.get("status") != item["status"] or not before.get("lastTransitionTime")
    moment = now if changed else (before or {})["lastTransitionTime"]
    if before is None:
        item = {key: value for key, value in item.items() if value is not None}
    return {**item, "lastTransitionTime": moment}


def _initialized(facts: PodFacts) -> Object:
    if facts.initialized:
        return _condition(INITIALIZED, True)
    waiting = [record.name for record in facts.init if not _init_done(record)]
    return _condition(
        INITIALIZED,
        not waiting,
        "ContainersNotInitialized" if waiting else "",
        f"containers with incomplete status: {_names(waiting)}" if waiting else "",
    )


def _init_done(record: ContainerRecord) -> bool:
    return record.stage is Stage.TERMINATED and record.terminated["exitCode"] == 0


def _containers_ready(facts: PodFacts) -> Object:
    if facts.finished:
        done = pod_phase(facts) == "Succeeded"
        return _condition(CONTAINERS_READY, False, "PodCompleted" if done else "PodFailed")
    unready = [record.name for record in facts.containers if not record.ready]
    if unready:
        message = f"containers with unready status: {_names(unready)}"
        return _condition(CONTAINERS_READY, False, "ContainersNotReady", message)
    return _condition(CONTAINERS_READY, True)


def _ready(facts: PodFacts, containers: Object, conditions: dict[str, Object]) -> Object:
    if containers["status"] != "True":
        return _condition(READY, False, containers["reason"] or "", containers["message"] or "")
    problems = []
    for gate in facts.pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        status = conditions.get(kind, {}).get("status")
        if status is None:
            problems.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif status != "True":
            problems.append(f'the status of pod readiness gate "{kind}" is not "True", but {status}')
    if problems:
        return _condition(READY, False, "ReadinessGatesNotReady", ", ".join(problems))
    return _condition(READY, True)


def _names(names: Iterable[str]) -> str:
    return "[" + " ".join(names) + "]"


def may_restart(policy: str, code: int, *, init: bool = False, sidecar: bool = False) -> bool:
    """Return whether a container that ended with ``code`` is started again under the pod's restartPolicy."""
    if sidecar:
        return True
    if init:
        return code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and code != 0)


class Backoff:
    """The pause of a crash loop: none at first, then ``first`` doubled up to ``last``.

    The kubelet forgets a loop when nothing happened for twice the longest pause.
    """

    def __init__(self, first: float, last: float) -> None:
        self._first, self._last = first, last
        self._current = 0.0
        self._updated = 0.0

    def advance(self, now: float) -> float:
        """Return the seconds to wait before the next start, given that a run ended at ``now``."""
        if self._current and now - self._updated > 2 * self._last:
            self._current = 0.0
        pause = self._current
        self._current = min(2 * self._current, self._last) if self._current else self._first
        self._updated = now + pause
        return pause


@dataclass(slots=True)
class Tally:
    """Counts equal results of a probe in a row and says when a threshold is reached."""

    success: int
    failure: int
    run: int = 0
    last: bool | None = None

    def count(self, result: bool) -> bool | None:
        """Return True or False when the result has been seen often enough, None before."""
        self.run = self.run + 1 if result == self.last else 1
        self.last = result
        needed = self.success if result else self.failure
        return result if self.run >= needed else None
