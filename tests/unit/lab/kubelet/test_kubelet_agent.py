from __future__ import annotations

from pathlib import Path

import pytest
from kubelet_fakes import FakeClient, pod, shell

from konverge.errors import UsageError
from konverge.kube.resources import PODS
from konverge.lab.kubelet.__main__ import parse_arguments
from konverge.lab.kubelet.agent import Kubelet
from konverge.lab.kubelet.caching import Mirror
from konverge.lab.kubelet.recording import BURST, Recorder
from konverge.lab.kubelet.settings import DELAYS, Delays, KubeletSettings

FLAGS = ["--kubeconfig", "k", "--dir", "d"]


def test_the_command_line_names_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DELAYS, "start=1")
    more = ["--nodes", "a, b", "--no-zygote", "--no-scheduler", "--ca-cert", "c", "--ca-key", "y", "--port", "0"]
    found = parse_arguments([*FLAGS, *more])
    assert found.nodes == ("a", "b")
    assert (found.zygote, found.schedule, found.port) == (False, False, 0)
    assert found.delays == Delays(start=1)
    assert found.directory.is_absolute()


def test_half_an_authority_is_refused() -> None:
    with pytest.raises(UsageError, match="needed together"):
        parse_arguments([*FLAGS, "--ca-cert", "c"])
    with pytest.raises(UsageError, match="'nope=1'"):
        parse_arguments([*FLAGS, "--delays", "nope=1"])


async def test_a_kubelet_registers_its_nodes(client: FakeClient, kubelet: Kubelet) -> None:
    nodes = client.stores["nodes"]
    assert sorted(name for _, name in nodes) == ["lab-1", "lab-2", "lab-3"]
    status = nodes[("", "lab-1")]["status"]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": kubelet.port}}
    ready = next(item for item in status["conditions"] if item["type"] == "Ready")
    assert ready["status"] == "True"
    await kubelet.stop()
    ready = next(item for item in nodes[("", "lab-1")]["status"]["conditions"] if item["type"] == "Ready")
    assert ready["status"] == "False"


async def test_directories_of_pods_that_are_gone_are_removed(client: FakeClient, settings: KubeletSettings) -> None:
    client.put(PODS, {**pod("known", shell("true"), nodeName="elsewhere")})
    known = settings.directory / "pods" / client.pod("known")["metadata"]["uid"]  # type: ignore[index]
    gone = settings.directory / "pods" / "gone"
    for directory in (known, gone):
        directory.mkdir(parents=True)
    async with Kubelet(settings, client):
        assert known.exists()
        assert not gone.exists()


async def test_one_pod_cannot_flood_the_events(client: FakeClient) -> None:
    recorder = Recorder(client, "kubelet")
    noisy, quiet = pod("a", shell("true")), pod("b", shell("true"))
    noisy["metadata"]["uid"], quiet["metadata"]["uid"] = "1", "2"
    for number in range(BURST + 50):
        recorder.record(noisy, "Unhealthy", f"attempt {number}", kind="Warning")
    recorder.record(quiet, "Started", "once")
    assert recorder._queue.qsize() == BURST + 1


async def test_a_listener_that_fails_does_not_end_the_copy(client: FakeClient) -> None:
    mirror = Mirror(client, PODS)
    heard: list[str] = []

    def fail(before: object, after: object) -> None:
        raise KeyError("bug")

    mirror.listen(fail)
    mirror.listen(lambda before, after: heard.append("x"))
    mirror._set(("default", "a"), pod("a", shell("true")))
    assert heard == ["x"]
    assert mirror.get("default", "a")


def test_state_is_kept_apart_from_the_working_directory() -> None:
    assert parse_arguments(FLAGS).directory == Path("d").resolve()
