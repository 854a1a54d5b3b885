# ruff: noqa: ASYNC110, ASYNC240 - files and processes of containers tell nobody when they change
from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubelet_fakes import FakeClient, pod, shell

from konverge.kube.resources import CONFIG_MAPS, PODS, SECRETS
from konverge.lab.addressing import LabNetwork
from konverge.lab.kubelet.agent import Kubelet
from konverge.lab.kubelet.settings import KubeletSettings

FOREVER = "exec sleep 600"


def running(client: FakeClient, name: str) -> bool:
    return client.phase(name) == "Running"


async def test_a_pod_becomes_ready_and_goes_when_deleted(
    client: FakeClient, kubelet: Kubelet, network: LabNetwork
) -> None:
    client.put(PODS, pod("a", shell(FOREVER)))
    await client.until(lambda: client.condition("a", "Ready").get("status") == "True")
    status = client.pod("a")["status"]  # type: ignore[index]
    assert status["podIP"] == f"127.{network.number}.64.2"
    assert status["hostIP"] == "127.0.0.1"
    assert status["containerStatuses"][0]["imageID"].startswith("lab/host@sha256:")
    assert status["containerStatuses"][0]["restartCount"] == 0
    types = [item["type"] for item in status["conditions"]]
    assert sorted(types) == sorted(
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    )
    client.delete_pod("a", 5)
    await client.until(lambda: client.pod("a") is None)
    assert not kubelet.workers or await _drained(kubelet)


async def _drained(kubelet: Kubelet) -> bool:
    async with asyncio.timeout(5):
        while kubelet.workers:
            await asyncio.sleep(0.01)
    return True


async def test_init_containers_run_in_order_before_the_others(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    init = [shell(f"echo {name} >> {trace}", name) for name in ("one", "two")]
    client.put(PODS, pod("a", shell(f"echo main >> {trace}; {FOREVER}"), initContainers=init))
    await client.until(lambda: running(client, "a"))
    await client.until(lambda: trace.read_text().split() == ["one", "two", "main"])
    statuses = client.pod("a")["status"]["initContainerStatuses"]  # type: ignore[index]
    assert [item["state"]["terminated"]["reason"] for item in statuses] == ["Completed", "Completed"]
    assert all(item["ready"] for item in statuses)


async def test_a_failing_init_container_is_repeated_and_holds_the_pod_back(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; test $(wc -l < {count}) -ge 3"
    client.put(PODS, pod("a", shell(FOREVER), initContainers=[shell(script, "init")]))
    await client.until(lambda: running(client, "a"))
    statuses = client.pod("a")["status"]["initContainerStatuses"]  # type: ignore[index]
    assert statuses[0]["restartCount"] == 2


async def test_a_sidecar_starts_before_and_ends_after_the_containers(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    side = shell(
        f"trap 'echo side-ends >> {trace}; exit' TERM; echo side >> {trace}; while :; do sleep 0.02; done", "s"
    )
    main = shell(f"trap 'echo main-ends >> {trace}; exit' TERM; echo main >> {trace}; while :; do sleep 0.02; done")
    client.put(PODS, pod("a", main, initContainers=[{**side, "restartPolicy": "Always"}]))
    await client.until(lambda: running(client, "a"))
    async with asyncio.timeout(5):
        while "main" not in trace.read_text().split():
            await asyncio.sleep(0.01)
    client.delete_pod("a", 5)
    await client.until(lambda: client.pod("a") is None)
    assert trace.read_text().split() == ["side", "main", "main-ends", "side-ends"]


async def test_a_crash_loop_shows_back_off_and_the_last_state(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell("exit 3")))
    waiting = await client.until(
        lambda: (
            client.container("a")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
            and client.container("a")
        )
    )
    assert waiting["lastState"]["terminated"]["exitCode"] == 3
    assert waiting["lastState"]["terminated"]["reason"] == "Error"
    assert "back-off" in waiting["state"]["waiting"]["message"]
    await client.until(lambda: client.container("a").get("restartCount", 0) >= 2)
    await client.until(lambda: client.condition("a", "Ready").get("reason") == "ContainersNotReady")
    await client.until(lambda: client.events("BackOff"))


async def test_restart_policy_never_ends_in_failed(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("bad", shell("exit 3"), restartPolicy="Never"))
    client.put(PODS, pod("good", shell("true"), restartPolicy="OnFailure"))
    await client.until(lambda: client.phase("bad") == "Failed")
    await client.until(lambda: client.phase("good") == "Succeeded")
    assert client.condition("good", "Ready")["reason"] == "PodCompleted"


async def test_readiness_gates_are_read_and_never_written(client: FakeClient, kubelet: Kubelet) -> None:
    gate = "konverge.dev/configured"
    client.put(PODS, pod("a", shell(FOREVER), readinessGates=[{"conditionType": gate}]))
    await client.until(lambda: client.condition("a", "Ready").get("reason") == "ReadinessGatesNotReady")
    assert client.condition("a", "ContainersReady")["status"] == "True"
    for status in ("True", "False"):
        item = client.pod("a")
        assert item is not None
        conditions = [old for old in item["status"]["conditions"] if old["type"] != gate]
        item["status"]["conditions"] = [*conditions, {"type": gate, "status": status, "reason": "Theirs"}]
        client.put(PODS, item)
        await client.until(lambda status=status: client.condition("a", "Ready").get("status") == status)
        assert client.condition("a", gate) == {"type": gate, "status": status, "reason": "Theirs"}
    assert "but False" in client.condition("a", "Ready")["message"]
    for resource, patch in client.patches:
        if resource == "pods":
            assert gate not in [item["type"] for item in patch["status"]["conditions"]]


async def test_what_others_write_over_our_status_is_corrected(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell(FOREVER)))
    await client.until(lambda: client.condition("a", "Ready").get("status") == "True")
    item = client.pod("a")
    assert item is not None
    item["status"]["phase"] = "Failed"
    next(old for old in item["status"]["conditions"] if old["type"] == "Ready")["status"] = "Unknown"
    client.put(PODS, item)
    await client.until(lambda: client.condition("a", "Ready")["status"] == "True" and running(client, "a"))


async def test_a_missing_secret_holds_the_pod_until_it_appears(client: FakeClient, kubelet: Kubelet) -> None:
    volume = {"name": "v", "secret": {"secretName": "late"}}
    container = shell(f"cat /v/key; echo; {FOREVER}", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    client.put(PODS, pod("a", container, volumes=[volume]))
    event = (await client.until(lambda: client.events("FailedMount")))[0]
    assert 'secret "late" not found' in event["message"]
    assert client.container("a")["state"]["waiting"]["reason"] == "ContainerCreating"
    client.put(
        SECRETS, {"metadata": {"name": "late", "namespace": "default"}, "type": "Opaque", "data": {"key": "djE="}}
    )
    await client.until(lambda: running(client, "a"))
    log = kubelet.log_path()
    await _until_text(log, "v1")


async def _until_text(directory: Path, text: str) -> str:
    async with asyncio.timeout(10):
        while True:
            found = "".join(path.read_text() for path in directory.glob("*/*/*.log"))
            if text in found:
                return found
            await asyncio.sleep(0.01)


async def test_a_missing_environment_source_is_a_configuration_error(client: FakeClient, kubelet: Kubelet) -> None:
    source = {"configMapKeyRef": {"name": "late", "key": "k"}}
    client.put(PODS, pod("a", shell(f"echo =$X=; {FOREVER}", env=[{"name": "X", "valueFrom": source}])))
    state = await client.until(lambda: client.container("a")["state"].get("waiting", {}).get("message"))
    assert state == 'configmap "late" not found'
    assert client.container("a")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    client.put(CONFIG_MAPS, {"metadata": {"name": "late", "namespace": "default"}, "data": {"k": "here"}})
    await client.until(lambda: running(client, "a"))
    await _until_text(kubelet.log_path(), "=here=")


async def test_an_unknown_image_names_the_known_ones_and_a_changed_image_starts(
    client: FakeClient, kubelet: Kubelet
) -> None:
    client.put(PODS, pod("a", {**shell(FOREVER), "image": "nginx:1"}))
    await client.until(lambda: client.container("a")["state"].get("waiting", {}).get("reason") == "ErrImagePull")
    assert "lab/host*" in client.container("a")["state"]["waiting"]["message"]
    await client.until(lambda: client.container("a")["state"].get("waiting", {}).get("reason") == "ImagePullBackOff")
    item = client.pod("a")
    assert item is not None
    item["spec"]["containers"][0]["image"] = "registry.example:5000/lab/host:2"
    client.put(PODS, item)
    await client.until(lambda: running(client, "a"))


async def test_volumes_follow_their_objects_but_sub_paths_do_not(
    client: FakeClient, kubelet: Kubelet, settings: KubeletSettings
) -> None:
    data: dict[str, Any] = {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "old"}}
    client.put(CONFIG_MAPS, data)
    mounts = [
        {"name": "v", "mountPath": "/v"},
        {"name": "v", "mountPath": "/single", "subPath": "k"},
    ]
    script = "cp /single /v/../copy; exec sleep 600"
    client.put(
        PODS, pod("a", shell(script, volumeMounts=mounts), volumes=[{"name": "v", "configMap": {"name": "c"}}])
    )
    await client.until(lambda: running(client, "a"))
    uid = client.pod("a")["metadata"]["uid"]  # type: ignore[index]
    root = settings.directory / "pods" / uid
    assert (root / "volumes/v/k").read_text() == "old"
    client.put(CONFIG_MAPS, {**data, "data": {"k": "new", "more": "x"}})
    await until_file(root / "volumes/v/k", "new")
    assert (root / "volumes/v/more").read_text() == "x"
    assert next(root.glob("containers/main/subpaths/1/k")).read_text() == "old"
    assert (root / "volumes/copy").read_text() == "old"


@pytest.mark.parametrize(("hook", "expected"), [("sleep 0.2; echo hook", ["hook", "term"]), ("exit 1", ["term"])])
async def test_pre_stop_comes_before_the_signal(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path, hook: str, expected: list[str]
) -> None:
    trace = tmp_path / "trace"
    script = f"trap 'echo term >> {trace}; exit' TERM; echo up; while :; do sleep 0.02; done"
    lifecycle = {"preStop": {"exec": {"command": ["sh", "-c", f"({hook}) >> {trace}"]}}}
    client.put(PODS, pod("a", shell(script, lifecycle=lifecycle)))
    await client.until(lambda: running(client, "a"))
    await _until_text(kubelet.log_path(), "up")
    client.delete_pod("a", 5)
    await client.until(lambda: client.pod("a") is None)
    assert trace.read_text().split() == expected
    assert bool(client.events("FailedPreStopHook")) == (hook == "exit 1")


async def test_the_last_status_tells_how_containers_ended(client: FakeClient, kubelet: Kubelet) -> None:
    script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done"
    client.put(PODS, pod("a", shell(script), shell(FOREVER, name="other")))
    await client.until(lambda: running(client, "a"))
    await _until_text(kubelet.log_path(), "up")
    client.delete_pod("a", 5)
    await client.until(lambda: client.pod("a") is None)
    last = [patch["status"] for resource, patch in client.patches if resource == "pods"][-1]
    ended = {item["name"]: item["state"]["terminated"]["exitCode"] for item in last["containerStatuses"]}
    assert ended == {"main": 7, "other": 143}
    assert last["phase"] == "Failed"
    assert next(item for item in last["conditions"] if item["type"] == "Ready")["status"] == "False"


@pytest.mark.parametrize("image", ["unknown/image", "lab/host"])
async def test_a_pod_that_is_deleted_while_it_waits_goes_at_once(
    client: FakeClient, kubelet: Kubelet, image: str
) -> None:
    client.put(PODS, pod("a", {**shell("exit 1"), "image": image}))
    await client.until(lambda: client.container("a")["state"].get("waiting", {}).get("message"))
    loop = asyncio.get_running_loop()
    began = loop.time()
    client.delete_pod("a", 60)
    await client.until(lambda: client.pod("a") is None)
    assert loop.time() - began < 5


async def test_a_container_that_ignores_the_signal_is_killed_after_its_grace(
    client: FakeClient, kubelet: Kubelet
) -> None:
    client.put(PODS, pod("a", shell("trap '' TERM; echo up; while :; do sleep 0.05; done")))
    await client.until(lambda: running(client, "a"))
    await _until_text(kubelet.log_path(), "up")
    loop = asyncio.get_running_loop()
    began = loop.time()
    client.delete_pod("a", 60)
    await client.until(lambda: client.condition("a", "Ready").get("status") == "True")
    client.delete_pod("a", 1)  # a second delete may only shorten the time
    await client.until(lambda: client.pod("a") is None)
    assert 1.0 <= loop.time() - began < 10


async def test_while_terminating_a_pod_stays_ready_until_a_probe_says_otherwise(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    flag = tmp_path / "ready"
    flag.touch()
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 0.05, "failureThreshold": 1}
    lifecycle = {"preStop": {"sleep": {"seconds": 30}}}
    client.put(PODS, pod("a", shell(FOREVER, readinessProbe=probe, lifecycle=lifecycle)))
    await client.until(lambda: client.condition("a", "Ready").get("status") == "True")
    client.delete_pod("a", 30)
    await client.until(lambda: client.events("Killing"))
    assert client.condition("a", "Ready")["status"] == "True"
    flag.unlink()
    await client.until(lambda: client.condition("a", "Ready")["status"] == "False")
    client.delete_pod("a", 0)
    await client.until(lambda: client.pod("a") is None)


async def test_an_object_that_vanishes_takes_its_processes_along(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell("trap '' TERM; sleep 600 & wait; sleep 600")))
    await client.until(lambda: running(client, "a"))
    client.drop(PODS, "default", "a")
    assert await _drained(kubelet)


def _other(status: dict[str, Any], first: dict[str, Any]) -> dict[str, Any] | None:
    return status if status["containerID"] != first["containerID"] else None


async def test_a_restarted_kubelet_counts_the_restart(client: FakeClient, settings: KubeletSettings) -> None:
    async with Kubelet(settings, client):
        client.put(PODS, pod("a", shell(FOREVER)))
        await client.until(lambda: running(client, "a"))
        first, address = client.container("a"), client.pod("a")["status"]["podIP"]  # type: ignore[index]
    async with Kubelet(settings, client):
        second = await client.until(lambda: _other(client.container("a"), first))
    assert second["restartCount"] == 1
    assert second["lastState"]["terminated"]["exitCode"] == 137
    assert client.pod("a")["status"]["podIP"] == address  # type: ignore[index]


async def test_a_failing_liveness_probe_restarts_the_container(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    flag = tmp_path / "alive"
    flag.touch()
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 0.05, "failureThreshold": 2}
    client.put(PODS, pod("a", shell(FOREVER, livenessProbe=probe)))
    first = await client.until(lambda: running(client, "a") and client.container("a"))
    flag.unlink()
    await client.until(lambda: client.events("Unhealthy"))
    await client.until(lambda: _other(client.container("a"), first))
    flag.touch()
    assert client.container("a")["lastState"]["terminated"]["exitCode"] == 143
    (killing,) = client.events("Killing")
    assert killing["message"] == "Container main failed liveness probe, will be restarted"
    assert killing["involvedObject"]["fieldPath"] == "spec.containers{main}"


async def test_a_startup_probe_holds_started_and_ready_back(
    client: FakeClient, kubelet: Kubelet, tmp_path: Path
) -> None:
    flag = tmp_path / "started"
    probe = {"exec": {"command": ["test", "-e", str(flag)]}, "periodSeconds": 0.05, "failureThreshold": 1000}
    client.put(PODS, pod("a", shell(FOREVER, startupProbe=probe)))
    await client.until(lambda: running(client, "a"))
    assert client.container("a")["started"] is False
    assert client.condition("a", "Ready")["status"] == "False"
    flag.touch()
    await client.until(lambda: client.condition("a", "Ready")["status"] == "True")
    assert client.container("a")["started"] is True


async def test_a_failing_post_start_hook_kills_the_container(client: FakeClient, kubelet: Kubelet) -> None:
    lifecycle = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}}
    client.put(PODS, pod("a", shell(FOREVER, lifecycle=lifecycle)))
    event = (await client.until(lambda: client.events("FailedPostStartHook")))[0]
    assert event["message"] == "PostStartHook failed: no"
    await client.until(lambda: client.container("a").get("restartCount", 0) >= 1)


async def test_last_words_are_kept(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell("echo why > /dev/termination-log; exit 1"), restartPolicy="Never"))
    logged = shell("echo first; echo last; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    client.put(PODS, pod("b", logged, restartPolicy="Never"))
    await client.until(lambda: client.phase("a") == "Failed" and client.phase("b") == "Failed")
    assert client.container("a")["state"]["terminated"]["message"] == "why\n"
    assert "last" in client.container("b")["state"]["terminated"]["message"]


async def test_labels_and_tokens_are_mounted_and_followed(
    client: FakeClient, kubelet: Kubelet, settings: KubeletSettings
) -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    client.put(PODS, pod("a", shell(FOREVER), volumes=[{"name": "v", "projected": {"sources": sources}}]))
    await client.until(lambda: running(client, "a"))
    item = client.pod("a")
    assert item is not None
    directory = settings.directory / "pods" / item["metadata"]["uid"] / "volumes/v"
    assert (directory / "token").read_text() == "t0k3n"
    assert (directory / "labels").read_text() == 'app="a"'
    item["metadata"]["labels"]["more"] = "1"
    client.put(PODS, item)
    await until_file(directory / "labels", 'app="a"\nmore="1"')


async def test_a_token_is_renewed_before_it_expires(
    client: FakeClient, kubelet: Kubelet, monkeypatch: pytest.MonkeyPatch, settings: KubeletSettings
) -> None:
    monkeypatch.setattr("konverge.lab.kubelet.volumes.ROTATE_AFTER", 0.1)
    sources = [{"serviceAccountToken": {"path": "token"}}]
    client.put(PODS, pod("a", shell(FOREVER), volumes=[{"name": "v", "projected": {"sources": sources}}]))
    await client.until(lambda: running(client, "a"))
    uid = client.pod("a")["metadata"]["uid"]  # type: ignore[index]
    client.token = "second"
    await until_file(settings.directory / "pods" / uid / "volumes/v/token", "second")


async def test_a_changed_image_restarts_a_running_container(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell(FOREVER)))
    first = await client.until(lambda: running(client, "a") and client.container("a"))
    item = client.pod("a")
    assert item is not None
    item["spec"]["containers"][0]["image"] = "lab/host:2"
    client.put(PODS, item)
    status = await client.until(lambda: _other(client.container("a"), first))
    assert status["image"] == "lab/host:2"
    assert "definition changed" in client.events("Killing")[0]["message"]


async def test_a_background_child_holds_nothing_up(client: FakeClient, kubelet: Kubelet, tmp_path: Path) -> None:
    child = tmp_path / "child"
    client.put(
        PODS, pod("a", shell(f"setsid sleep 600 & echo $! > {child}; sleep 0.2; exit 5"), restartPolicy="Never")
    )
    await client.until(lambda: client.phase("a") == "Failed")
    assert client.container("a")["state"]["terminated"]["exitCode"] == 5
    os.kill(int(child.read_text()), signal.SIGKILL)  # the lab has no control groups: it left the session


async def test_logs_of_runs_before_and_while_waiting(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell("echo run; exit 1")))
    await client.until(lambda: client.container("a").get("restartCount", 0) >= 2)
    container = next(iter(kubelet.workers.values())).find("")
    paths = {}
    async with asyncio.timeout(10):
        while len(paths) < 2:
            current, before = container.log_path(previous=False), container.log_path(previous=True)
            assert current is not None
            assert before is not None
            paths[container.record.stage.value] = (int(current.stem), int(before.stem))
            await asyncio.sleep(0.005)
    for stage, (current_number, before_number) in paths.items():
        assert current_number - before_number == (0 if stage == "waiting" else 1)


async def test_a_pod_of_the_host_network_has_the_nodes_address(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("a", shell(FOREVER), hostNetwork=True))
    await client.until(lambda: running(client, "a"))
    assert client.pod("a")["status"]["podIP"] == "127.0.0.1"  # type: ignore[index]


async def test_a_pod_of_another_node_is_left_alone(client: FakeClient, kubelet: Kubelet) -> None:
    client.put(PODS, pod("theirs", shell(FOREVER), nodeName="elsewhere"))
    client.put(PODS, pod("ours", shell(FOREVER)))
    await client.until(lambda: running(client, "ours"))
    assert "status" not in (client.pod("theirs") or {})


async def test_the_scheduler_binds_and_explains(client: FakeClient, settings: KubeletSettings) -> None:
    async with Kubelet(replace(settings, schedule=True, nodes=("n1", "n2")), client):
        client.put(PODS, {**pod("a", shell(FOREVER)), "spec": {"containers": [shell(FOREVER)]}})
        await client.until(lambda: running(client, "a"))
        assert client.pod("a")["spec"]["nodeName"] in ("n1", "n2")  # type: ignore[index]
        spec = {"containers": [shell(FOREVER)], "nodeSelector": {"no": "such"}}
        client.put(PODS, {**pod("b", shell(FOREVER)), "spec": spec})
        condition = await client.until(lambda: client.condition("b", "PodScheduled"))
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        await client.until(lambda: client.events("FailedScheduling"))


async def until_file(path: Path, text: str) -> None:
    async with asyncio.timeout(10):
        while path.read_text() != text:
            await asyncio.sleep(0.01)
