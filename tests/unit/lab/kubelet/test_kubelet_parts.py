from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from konverge.errors import Busy, NotFound, UsageError
from konverge.lab.kubelet.addresses import AddressPool
from konverge.lab.kubelet.images import (
    HOST,
    KONG_COMMAND,
    find_program,
    repository_of,
    resolve_command,
    resolve_container,
)
from konverge.lab.kubelet.logs import LogFile, LogQuery, prune, read_log
from konverge.lab.kubelet.mounts import translate
from konverge.lab.kubelet.payloads import NotMountable, Origins, token_requests, volume_payload
from konverge.lab.kubelet.placing import choose_node
from konverge.lab.kubelet.projecting import AtomicDirectory
from konverge.lab.kubelet.settings import Delays, KubeletSettings

# Addresses


def test_addresses_follow_the_numbering_of_the_lab() -> None:
    pool = AddressPool("127.30.64.0/18", "127.30.128.0/18")
    addresses = [pool.acquire() for _ in range(252)]
    assert (addresses[0].ip, addresses[0].loopback) == ("127.30.64.2", "127.30.128.2")
    assert (addresses[249].ip, addresses[250].ip) == ("127.30.64.251", "127.30.65.2")
    assert addresses[251].loopback == "127.30.129.3"
    assert len({item.ip for item in addresses}) == 252


def test_a_freed_address_rests_and_a_wanted_one_is_given_when_free() -> None:
    pool = AddressPool("127.30.64.0/23", "127.30.128.0/23")
    first = pool.acquire()
    pool.release(first)
    assert pool.acquire().ip == "127.30.64.3"
    assert pool.acquire("127.30.65.2").number == 250
    assert pool.acquire("127.30.65.2").ip == "127.30.64.4"
    assert pool.acquire("10.0.0.1").ip == "127.30.64.5"


def test_an_empty_pool_says_so() -> None:
    pool = AddressPool("127.30.64.0/24", "127.30.128.0/24")
    for _ in range(250):
        pool.acquire()
    with pytest.raises(Busy):
        pool.acquire()


def test_the_loopbacks_lie_beside_the_pods() -> None:
    assert KubeletSettings(Path(), Path(), pod_cidr="127.30.64.0/18").loopbacks() == "127.30.128.0/18"
    assert KubeletSettings(Path(), Path(), pod_cidr="10.244.0.0/16").loopbacks() == "127.244.128.0/18"


def test_delays_are_read_and_refused() -> None:
    assert Delays.parse("start=0.5, project=1") == Delays(start=0.5, project=1)
    for text in ("nope=1", "start=x", "start=-1"):
        with pytest.raises(UsageError, match="backoff, project, start, terminate"):
            Delays.parse(text)


# Images


@pytest.mark.parametrize(
    ("image", "module"),
    [
        ("kong:3.9", "konverge.lab.kong"),
        ("docker.io/library/kong:3.9.1", "konverge.lab.kong"),
        ("registry:5000/kong/kong-gateway@sha256:00", "konverge.lab.kong"),
        ("kong/kubernetes-ingress-controller:3.5", "konverge.lab.sidecar"),
        ("ghcr.io/konverge/konverge:1", "konverge.cli.main"),
        ("konverge/echo:1", "konverge.lab.echo"),
        ("lab/host", ""),
    ],
)
def test_images_map_to_programs(image: str, module: str) -> None:
    assert find_program(image).module == module


def test_an_unknown_image_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"kong/kong\*"):
        find_program("nginx:1.27")
    assert repository_of("localhost/a/b:1@sha256:0") == "a/b"


@pytest.mark.parametrize(
    ("image", "command", "arguments", "module", "words"),
    [
        ("kong:3", (), (), "konverge.lab.kong", ()),
        ("kong:3", (), ("kong", "docker-start"), "konverge.lab.kong", ()),
        ("kong:3", ("/docker-entrypoint.sh",), ("kong", "docker-start"), "konverge.lab.kong", ()),
        ("kong:3", ("kong", "health"), (), KONG_COMMAND, ("health",)),
        ("kong:3", ("rm", "-rf", "/x"), (), "", ("rm", "-rf", "/x")),
        ("konverge/konverge:1", (), ("controller",), "konverge.cli.main", ("controller",)),
        ("konverge/konverge:1", ("konverge",), ("controller",), "konverge.cli.main", ("controller",)),
        ("lab/host", ("sh", "-c"), ("true",), "", ("sh", "-c", "true")),
    ],
)
def test_command_lines(
    image: str, command: tuple[str, ...], arguments: tuple[str, ...], module: str, words: tuple[str, ...]
) -> None:
    program, line = resolve_container(image, command, arguments)
    assert (program.module, line) == (module, words)


def test_kong_in_a_container_is_the_stand_ins_command() -> None:
    assert resolve_command(("/usr/local/bin/kong", "reload"))[0].module == KONG_COMMAND
    assert resolve_command(("sh", "-c", "kong reload")) == (HOST, ("sh", "-c", "kong reload"))


def test_container_paths_in_host_commands_become_host_paths() -> None:
    mounts = {"/kong_prefix/": "/h/p", "/kong_prefix/ssl": "/h/s", "/": "/h/root"}
    words = (
        "rm",
        "-rf",
        "/kong_prefix/pids",
        "--d=/kong_prefix",
        "cat /kong_prefix/ssl/x; ls /kong_prefixes /a/kong_prefix",
    )
    assert translate(words, mounts) == (
        "rm",
        "-rf",
        "/h/p/pids",
        "--d=/h/p",
        "cat /h/s/x; ls /kong_prefixes /a/kong_prefix",
    )


# Volumes


def encode(**data: str) -> dict[str, str]:
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def origins(**more: Any) -> Origins:
    pod = {"metadata": {"name": "p", "namespace": "ns", "labels": {"a": "1"}}, "spec": {"containers": []}}
    secrets = {"s": {"data": encode(a="1", b="2")}}
    maps = {"c": {"data": {"k": "v"}, "binaryData": encode(raw="r")}}
    return Origins(pod, "127.0.64.2", "127.0.0.1", secrets.get, maps.get, **more)


def test_secrets_and_config_maps_become_files() -> None:
    volume = {
        "secret": {"secretName": "s", "items": [{"key": "a", "path": "d/x", "mode": 0o400}], "defaultMode": 0o640}
    }
    assert volume_payload(volume, origins()) == {"d/x": (b"1", 0o400)}
    assert volume_payload({"secret": {"secretName": "s"}}, origins())["b"] == (b"2", 0o644)
    assert volume_payload({"configMap": {"name": "c"}}, origins()) == {"k": (b"v", 0o644), "raw": (b"r", 0o644)}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "no", "path": "x"}]}}, "non-existent configmap key: no"),
        ({"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}, "failed to fetch token"),
    ],
)
def test_what_cannot_be_mounted_is_named(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(NotMountable, match=message):
        volume_payload(volume, origins())


def test_optional_volumes_may_be_empty() -> None:
    assert volume_payload({"secret": {"secretName": "no", "optional": True}}, origins()) == {}


def test_a_projected_volume_joins_its_sources() -> None:
    request = {"path": "token", "expirationSeconds": 600, "audience": "aud"}
    sources = [
        {"serviceAccountToken": request},
        {"secret": {"name": "s", "items": [{"key": "a", "path": "a"}]}},
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "k"}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = {"name": "v", "projected": {"sources": sources}}
    (key,) = token_requests([volume])
    payload = volume_payload(volume, origins(tokens={key: b"jwt"}))
    assert payload == {"token": (b"jwt", 0o600), "a": (b"1", 0o644), "k": (b"v", 0o644), "ns": (b"ns", 0o644)}
    assert "jwt" not in repr(origins(tokens={key: b"jwt"}))


def test_a_projected_directory_changes_in_one_step(tmp_path: Path) -> None:
    directory = AtomicDirectory(tmp_path / "v")
    assert directory.write({"a": (b"1", 0o644), "d/b": (b"2", 0o400)})
    assert not directory.write({"a": (b"1", 0o644), "d/b": (b"2", 0o400)})
    assert (tmp_path / "v/d/b").stat().st_mode & 0o777 == 0o400
    held = os.open(tmp_path / "v/..data", os.O_RDONLY)  # a reader that keeps the old directory
    assert directory.write({"a": (b"3", 0o644), "c": (b"4", 0o644)})
    assert (tmp_path / "v/a").read_bytes() == b"3"
    assert not (tmp_path / "v/d").exists()
    assert sorted(path.name for path in (tmp_path / "v").iterdir() if not path.name.startswith("..")) == ["a", "c"]
    assert os.readlink(tmp_path / "v/a") == "..data/a"
    assert len([path for path in (tmp_path / "v").iterdir() if path.name.startswith("..2")]) == 1
    os.close(held)


def test_a_payload_cannot_leave_its_volume(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leaves its volume"):
        AtomicDirectory(tmp_path / "v").write({"../x": (b"", 0o644)})


# Logs


async def text(path: Path, live: LogFile | None = None, **query: Any) -> str:
    return b"".join([block async for block in read_log(path, LogQuery(**query), live)]).decode()


async def test_logs_are_stamped_cut_and_filtered(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "0.log")
    log.write("stdout", b"one\ntw")
    log.write("stderr", b"err\n")
    log.write("stdout", b"o\nthree\n")
    log.write("stdout", b"x" * 40_000 + b"\nend")
    log.close()
    path = tmp_path / "0.log"
    whole = await text(path)
    assert whole == "one\nerr\ntwo\nthree\n" + "x" * 40_000 + "\nend\n"
    assert await text(path, tail=1) == "end\n"
    assert await text(path, tail=0) == ""
    assert await text(path, tail=100) == whole
    assert await text(path, limit=5) == "one\ne"
    assert await text(path, stream="stderr") == "err\n"
    assert await text(path, since=datetime.now(UTC) + timedelta(minutes=1)) == ""
    first = (await text(path, timestamps=True)).splitlines()[0]
    assert first.endswith("Z one")
    assert datetime.fromisoformat(first.split()[0][:26] + "+00:00") <= datetime.now(UTC)


async def test_a_follower_sees_what_comes_and_ends_with_the_container(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "0.log")
    log.write("stdout", b"first\n")
    blocks = read_log(tmp_path / "0.log", LogQuery(follow=True), log)
    assert await anext(blocks) == b"first\n"
    log.write("stdout", b"second\nunfinished")
    assert await anext(blocks) == b"second\n"
    log.close()
    assert await anext(blocks) == b"unfinished\n"
    assert [block async for block in blocks] == []


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"{number}.log").touch()
    prune(tmp_path)
    assert sorted(int(path.stem) for path in tmp_path.iterdir()) == [7, 8, 9, 10, 11]


# Placing


def node(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "disk": name}}, "spec": spec}


def placed(name: str, where: str = "", app: str = "x", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "ns", "labels": {"app": app}},
        "spec": {"nodeName": where, **spec},
    }


def apart(app: str, *, required: bool = True) -> dict[str, Any]:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}
    if required:
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = [{"weight": 1, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


NODES = [node("n1"), node("n2")]


def test_the_emptiest_node_wins() -> None:
    assert choose_node(placed("p"), NODES, [placed("q", "n1")]) == ("n2", "")


def test_required_anti_affinity_refuses_and_says_why() -> None:
    pods = [placed("a", "n1"), placed("b", "n2")]
    name, why = choose_node(placed("p", affinity=apart("x")), NODES, pods)
    assert name == ""
    assert why == "0/2 nodes are available: 2 node(s) didn't match pod anti-affinity rules."
    assert choose_node(placed("p", affinity=apart("x")), NODES, pods[:1])[0] == "n2"


def test_pods_that_want_to_be_apart_are_left_alone() -> None:
    name, _ = choose_node(
        placed("p"), NODES, [placed("q", "n1", "y", affinity=apart("x")), *[placed(str(i), "n2") for i in range(3)]]
    )
    assert name == "n2"


def test_preferred_anti_affinity_beats_emptiness_but_never_refuses() -> None:
    pods = [placed("a", "n1"), placed("b", "n2", "y"), placed("c", "n2", "y")]
    assert choose_node(placed("p", affinity=apart("x", required=False)), NODES, pods)[0] == "n2"
    assert choose_node(placed("p", affinity=apart("x", required=False)), NODES[:1], pods)[0] == "n1"


def test_cordons_and_selectors_count() -> None:
    assert choose_node(placed("p"), [node("n1", unschedulable=True), node("n2")], [])[0] == "n2"
    assert choose_node(placed("p", nodeSelector={"disk": "n2"}), NODES, [])[0] == "n2"
    expression = {"key": "disk", "operator": "In", "values": ["n1"]}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert choose_node(placed("p", affinity=affinity), NODES, [placed("q", "n1")])[0] == "n1"
