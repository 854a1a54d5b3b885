"""Errors as a user meets them: one message with a hint on standard error, the right exit code, JSON that parses."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from konverge.cli.demo.staging import install_crds
from konverge.cli.main import app
from konverge.cli.output import FAILED, REFUSED, USAGE
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, NAMESPACES, SERVICES, Object
from konverge.model.fleet import FleetSpec
from konverge.model.migration import MigrationPhase, MigrationSpec
from konverge.model.target import Target
from konverge.operate.fleets import apply_fleet
from konverge.operate.migrating import Site, set_phase
from konverge.operate.migrations import apply_migration

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The kubeconfig of an API server on which nothing is installed."""
    yield from serve(tmp_path_factory.mktemp("bare"))


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One with the CRDs, a paused fleet, a limping release, a database and an ended migration."""
    for path in serve(tmp_path_factory.mktemp("furnished")):
        asyncio.run(furnish(path))
        yield path


def serve(directory: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "konverge.lab.apiserver", "--listen", "127.0.0.1:0", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["kubeconfig"])
        finally:
            process.terminate()
            process.wait(10)


def legacy(name: str, **environment: str) -> Object:
    env = [{"name": key, "value": value} for key, value in environment.items()]
    labels = {"app.kubernetes.io/instance": name}
    containers = [
        {"name": "proxy", "image": "kong:3.9", "env": env},
        {"name": "ingress-controller", "image": "kong/kubernetes-ingress-controller:3.5"},
    ]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 3, "selector": {"matchLabels": labels}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-kong", "namespace": "default", "labels": labels},
        "spec": spec,
    }


def service(name: str) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8000}]
    selector = {"app.kubernetes.io/instance": name}
    metadata = {"name": f"{name}-proxy", "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": selector, "ports": ports},
    }


async def furnish(kubeconfig: str) -> None:
    async with await KubeClient.connect(kubeconfig) as kube:
        await install_crds(kube)
        await kube.create(NAMESPACES, {"metadata": {"name": "gateways"}})
        await apply_fleet(kube, "resting", "default", FleetSpec(proxy_service="s", paused=True))
        for body in (legacy("limping"), legacy("database", KONG_DATABASE="postgres"), legacy("lonely")):
            await kube.create(DEPLOYMENTS, body)
        for name in ("limping", "database"):
            await kube.create(SERVICES, service(name))
        migration = await apply_migration(kube, "ended", "default", MigrationSpec(fleet="x", release="ended"))
        site = Site(kube, Target(fleet="x"))
        await set_phase(site, migration, MigrationPhase.ROLLED_BACK)


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, list(words), env={"KUBECONFIG": None, "COLUMNS": "80"})


def expect(words: list[str], code: int, reason: str, *parts: str) -> None:
    """Run a command for people and for programs and check both."""
    result = invoke(*words)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    first, hint, *more = result.stderr.splitlines()
    assert first.startswith(f"{reason}: ")
    assert hint.startswith("  see docs/")
    assert more == []
    for part in parts:
        assert part in first
    if words[0] != "controller":
        parsed = orjson.loads(invoke(*words, "-o", "json").stdout)["error"]
        assert parsed["reason"] == reason
        assert first == f"{reason}: {parsed['message']}"
        assert hint == f"  see {parsed['hint']}"


READERS = [
    ["status"],
    ["status", "shop"],
    ["sync", "--fleet", "shop"],
    ["sync", "--fleet", "shop", "--dry-run"],
    ["history", "--fleet", "shop"],
    ["certs", "status", "--fleet", "shop"],
    ["certs", "rotate", "--fleet", "shop"],
    ["certs", "renew", "--fleet", "shop"],
    ["migrate", "plan", "kong"],
    ["migrate", "run", "kong"],
    ["migrate", "status", "kong"],
    ["migrate", "rollback", "kong"],
]
"""Every command that reaches the cluster before anything else."""
WORDS = [" ".join(words) for words in READERS]


@pytest.mark.parametrize("words", READERS, ids=WORDS)
def test_a_missing_kubeconfig_is_named(words: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    expect([*words, "--kubeconfig", missing], USAGE, "BadKubeconfig", missing, "no such file")


BROKEN = {
    "no yaml": "{ not yaml: [",
    "a binary": b"\x00\x01\xff\xfe",
    "a list": "- 1\n- 2\n",
    "empty": "",
    "no contexts": "apiVersion: v1\nkind: Config\n",
    "another context": "apiVersion: v1\nkind: Config\ncurrent-context: gone\ncontexts: []\nclusters: []\nusers: []\n",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_kubeconfig_is_named(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    expect(["status", "--kubeconfig", str(path)], USAGE, "BadKubeconfig", str(path))


def test_a_context_that_does_not_exist_is_named(furnished: str) -> None:
    expect(["status", "--kubeconfig", furnished, "--context", "moon"], USAGE, "BadKubeconfig", "moon")


@pytest.fixture
def dead(tmp_path: Path, furnished: str) -> str:
    """A kubeconfig that leads to a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "dead"
    path.write_text(re.sub(r"https://127\.0\.0\.1:\d+", f"https://127.0.0.1:{port}", Path(furnished).read_text()))
    return str(path)


@pytest.mark.parametrize("words", READERS, ids=WORDS)
def test_an_api_server_that_is_down_is_named(words: list[str], dead: str) -> None:
    expect([*words, "--kubeconfig", dead], FAILED, "ApiUnreachable", "https://127.0.0.1:")


class Portal(http.server.BaseHTTPRequestHandler):
    """Answers everything with a page, as a captive portal does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"<html>hello<>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_a_server_that_is_no_api_server_is_named(tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cluster = {"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        contexts = [{"name": "a", "context": {"cluster": "a", "user": "a"}}]
        config = {
            "current-context": "a",
            "clusters": [cluster],
            "contexts": contexts,
            "users": [{"name": "a", "user": {}}],
        }
        path = tmp_path / "config"
        path.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **config}))
        expect(["status", "--kubeconfig", str(path)], FAILED, "NotAnApiServer", "not with JSON")
        server.shutdown()


@pytest.mark.parametrize("words", READERS[1:], ids=WORDS[1:])
def test_missing_crds_are_refused_with_the_command_that_installs_them(words: list[str], bare: str) -> None:
    expect([*words, "--kubeconfig", bare], REFUSED, "CrdsMissing", "konverge crds | kubectl apply")


def test_no_fleet_at_all_is_no_error(bare: str) -> None:
    result = invoke("status", "--kubeconfig", bare)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "No ProxyFleet" in result.stdout
    assert orjson.loads(invoke("status", "-o", "json", "--kubeconfig", bare).stdout) == {"fleets": []}


@pytest.mark.parametrize("words", READERS[1:8], ids=WORDS[1:8])
def test_an_unknown_fleet_names_those_that_exist(words: list[str], furnished: str) -> None:
    expect([*words, "--kubeconfig", furnished], FAILED, "FleetNotFound", "default/shop", "default/resting")


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_an_unknown_release_names_those_that_exist(verb: str, furnished: str) -> None:
    words = ["migrate", verb, "nothing", "--kubeconfig", furnished]
    expect(words, FAILED, "ReleaseNotFound", "'nothing'", "database, limping, lonely")


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("release", "reason", "part"),
    [
        ("limping", "LegacyNotReady", "0 of 3 replicas ready"),
        ("database", "DatabaseMode", "postgres"),
        ("lonely", "TrafficServiceNotFound", "proxy port"),
    ],
)
def test_what_cannot_be_migrated_is_refused(verb: str, release: str, reason: str, part: str, furnished: str) -> None:
    expect(["migrate", verb, release, "--kubeconfig", furnished], REFUSED, reason, part)


def test_an_ended_migration_is_not_begun_again(furnished: str) -> None:
    words = ["migrate", "run", "ended", "--kubeconfig", furnished]
    expect(words, REFUSED, "MigrationEnded", "kubectl delete fleetmigration ended")


@pytest.mark.parametrize("verb", ["status", "rollback"])
def test_an_unknown_migration_is_named(verb: str, furnished: str) -> None:
    words = ["migrate", verb, "nothing", "--kubeconfig", furnished]
    expect(words, FAILED, "MigrationNotFound", "default/nothing")


def test_a_refused_migration_leaves_nothing_behind(furnished: str) -> None:
    invoke("migrate", "run", "limping", "--kubeconfig", furnished)
    expect(["migrate", "status", "limping", "--kubeconfig", furnished], FAILED, "MigrationNotFound")


@pytest.mark.parametrize("words", [["certs", "status", "--fleet", "resting"]], ids=" ".join)
def test_a_fleet_without_an_identity_names_the_secret(words: list[str], furnished: str) -> None:
    expect([*words, "--kubeconfig", furnished], FAILED, "IdentityMissing", "resting-")


@pytest.mark.parametrize(
    "words",
    [
        ["sync", "--fleet", "resting"],
        ["certs", "rotate", "--fleet", "resting"],
        ["migrate", "rollback", "ended"],
    ],
    ids=" ".join,
)
def test_a_prefect_server_that_is_configured_but_dead_is_named(
    words: list[str], furnished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    expect([*words, "--kubeconfig", furnished], FAILED, "PrefectUnreachable", "http://127.0.0.1:9/api")


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", "127.0.0.1:"])
def test_the_controller_names_a_listen_address_that_is_none(listen: str, furnished: str) -> None:
    words = ["controller", "--fleet", "resting", "--listen", listen, "--kubeconfig", furnished]
    expect(words, USAGE, "Usage", repr(listen))


def test_the_controller_names_a_port_that_is_taken(furnished: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        words = ["controller", "--fleet", "resting", "--listen", listen, "--kubeconfig", furnished]
        expect(words, USAGE, "PortTaken", listen.rpartition(":")[2])


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "cannot be used"),
        ("metadata: {name: x}\nspec: {replicas: 3}\n", "spec.proxyService"),
        (None, "No such file"),
    ],
)
def test_the_controller_names_a_fleet_file_that_is_off(
    content: str | None, part: str, furnished: str, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.yaml"
    if content is not None:
        path.write_text(content)
    words = ["controller", "--fleet", "x", "--listen", "127.0.0.1:0", "--fleet-file", str(path)]
    expect([*words, "--kubeconfig", furnished], USAGE, "BadFleetFile", str(path), part)


def test_crds_are_written_and_checked(tmp_path: Path) -> None:
    assert invoke("crds", "--check", str(tmp_path)).exit_code == FAILED
    assert invoke("crds", "--write", str(tmp_path)).exit_code == 0
    assert invoke("crds", "--check", str(tmp_path)).exit_code == 0
    (tmp_path / "proxyfleets.konverge.dev.yaml").write_text("changed")
    stale = invoke("crds", "--check", str(tmp_path))
    assert stale.exit_code == FAILED
    assert "stale: proxyfleets.konverge.dev.yaml" in stale.stderr


def test_as_a_process_there_is_no_traceback_either(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from konverge.cli.main import run; run()"]
    words = ["status", "--kubeconfig", str(tmp_path / "none")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == USAGE
    assert done.stdout == ""
    assert done.stderr.startswith("BadKubeconfig: ")
    assert len(done.stderr.splitlines()) == 2
