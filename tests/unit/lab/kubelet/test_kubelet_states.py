from __future__ import annotations

from typing import Any

import pytest

from konverge.lab.kubelet.states import (
    Backoff,
    ContainerRecord,
    PodFacts,
    Tally,
    may_restart,
    pod_phase,
    pod_status,
)

NOW, BEFORE = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"


def record(
    name: str = "main", *, running: bool = False, code: int | None = None, ready: bool = True
) -> ContainerRecord:
    item = ContainerRecord(name, "lab/host")
    if running or code is not None:
        item.run("konverge://1", BEFORE, started=True, ready=ready)
    if code is not None:
        item.terminate(code, "Error" if code else "Completed", "", NOW)
    return item


def facts(*containers: ContainerRecord, pod: dict[str, Any] | None = None, **more: Any) -> PodFacts:
    return PodFacts(
        pod=pod or {"spec": {}},
        init=more.pop("init", ()),
        containers=containers,
        now=NOW,
        start_time=BEFORE,
        host_ip="127.0.0.1",
        pod_ip="127.0.64.2",
        initialized=more.pop("initialized", True),
        **more,
    )


def conditions(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in status["conditions"]}


@pytest.mark.parametrize(
    ("containers", "more", "phase"),
    [
        ([record()], {}, "Pending"),
        ([record()], {"initialized": False}, "Pending"),
        ([record(running=True), record("b")], {}, "Pending"),
        ([record(running=True), record("b", code=1)], {}, "Running"),
        ([record(code=0)], {"finished": True}, "Succeeded"),
        ([record(code=0), record("b", code=2)], {"finished": True}, "Failed"),
        ([record()], {"finished": True}, "Failed"),
    ],
)
def test_phase(containers: list[ContainerRecord], more: dict[str, Any], phase: str) -> None:
    assert pod_phase(facts(*containers, **more)) == phase


def test_a_container_in_back_off_keeps_the_pod_running_and_shows_its_last_state() -> None:
    item = record(code=3)
    assert item.wait("CrashLoopBackOff", "back-off 10s")
    assert not item.wait("CrashLoopBackOff", "back-off 10s")
    status = pod_status(facts(item))
    assert status["phase"] == "Running"
    shown = status["containerStatuses"][0]
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 3
    assert shown["containerID"] == "konverge://1"
    assert not shown["ready"]


def test_unready_containers_are_named() -> None:
    status = pod_status(facts(record(running=True), record("side", running=True, ready=False)))
    ready = conditions(status)["Ready"]
    assert (ready["status"], ready["reason"]) == ("False", "ContainersNotReady")
    assert ready["message"] == "containers with unready status: [side]"


@pytest.mark.parametrize(("gate", "expected"), [("True", "True"), ("False", "False"), (None, "False")])
def test_ready_needs_every_gate(gate: str | None, expected: str) -> None:
    told = [{"type": "g", "status": gate}] if gate else []
    pod = {"spec": {"readinessGates": [{"conditionType": "g"}]}, "status": {"conditions": told}}
    found = conditions(pod_status(facts(record(running=True), pod=pod)))
    assert found["Ready"]["status"] == expected
    assert found["ContainersReady"]["status"] == "True"
    assert "g" not in found
    if gate is None:
        assert "does not exist" in found["Ready"]["message"]


def test_a_condition_keeps_its_date_until_its_status_changes() -> None:
    told = [{"type": "Ready", "status": "True", "lastTransitionTime": BEFORE}]
    pod = {"spec": {}, "status": {"conditions": told}}
    same = conditions(pod_status(facts(record(running=True), pod=pod)))["Ready"]
    assert same["lastTransitionTime"] == BEFORE
    changed = conditions(pod_status(facts(record(running=True, ready=False), pod=pod)))["Ready"]
    assert changed["lastTransitionTime"] == NOW
    back = conditions(pod_status(facts(record(running=True), pod=pod)))["Ready"]
    assert back["reason"] is None  # a merge patch must take the old reason away


def test_init_containers_hold_the_initialized_condition() -> None:
    status = pod_status(facts(record(), init=[record("one", code=0), record("two")], initialized=False))
    found = conditions(status)["Initialized"]
    assert found["message"] == "containers with incomplete status: [two]"
    assert [item["ready"] for item in status["initContainerStatuses"]] == [True, False]


@pytest.mark.parametrize(
    ("policy", "code", "more", "again"),
    [
        ("Always", 0, {}, True),
        ("OnFailure", 0, {}, False),
        ("OnFailure", 1, {}, True),
        ("Never", 1, {}, False),
        ("Always", 0, {"init": True}, False),
        ("Always", 1, {"init": True}, True),
        ("Never", 1, {"init": True}, False),
        ("Never", 0, {"init": True, "sidecar": True}, True),
    ],
)
def test_restart_policies(policy: str, code: int, more: dict[str, bool], again: bool) -> None:
    assert may_restart(policy, code, **more) is again


def test_back_off_doubles_to_its_limit_and_forgets_after_a_long_calm() -> None:
    backoff, now, pauses = Backoff(10, 300), 0.0, []
    for _ in range(8):
        pauses.append(backoff.advance(now))
        now += pauses[-1] + 1
    assert pauses == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.advance(now + 601) == 0


def test_thresholds_count_equal_results_in_a_row() -> None:
    tally = Tally(success=1, failure=3)
    results = [tally.count(result) for result in (True, False, False, True, False, False, False)]
    assert results == [True, None, None, True, None, None, False]
