"""Sealed identities from end to end: the command moves and rewraps them, and no key is left where none may be."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_FLEETS, SEALED_IDENTITIES, SECRETS
from konverge.model.fleet import Fleet, FleetSpec, KeyStoreSpec
from konverge.model.fleet import Identity as IdentitySpec
from konverge.operate.fleets import load_fleet
from konverge.operate.identities import ensure_identity, load_keys
from konverge.pki.keys import PrivateKey
from tests.e2e.scanning import Needle, find_in_files, find_in_objects, find_in_processes
from tests.integration.pki.conftest import ApiServer

KONVERGE = [sys.executable, "-c", "from konverge.cli.main import run; run()"]
BUILD_CONTEXTS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from konverge.pki.authority import Authority, request_controller
from konverge.pki.bundle import build_bundle
from konverge.pki.contexts import build_client_context
now = datetime.now(UTC)
authority = Authority.create("edge", now)
leaf = authority.issue(request_controller("edge"), now)
Path(sys.argv[1]).write_bytes(leaf.key.to_pem())
bundle = build_bundle(authority.identity.chain, now)
build_client_context(bundle, leaf)
print("begun", flush=True)
while True:
    build_client_context(bundle, leaf)
"""


async def make_fleet(kube: KubeClient, namespace: str, key_file: Path, kind: str) -> Fleet:
    store = KeyStoreSpec(kind=kind, key_source="file", key_name=str(key_file))  # type: ignore[arg-type]
    spec = FleetSpec(proxy_service="s", identity=IdentitySpec(store=store))
    body = {
        "apiVersion": PROXY_FLEETS.api_version,
        "kind": "ProxyFleet",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": spec.to_json(),
    }
    await kube.create(PROXY_FLEETS, body)
    return await load_fleet(kube, "shop", namespace)


class Command:
    """Runs konverge with a directory of its own for temporary files, and keeps all it said."""

    def __init__(self, server: ApiServer, namespace: str, directory: Path) -> None:
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.output = directory / "output"
        self.environment = {
            **os.environ,
            "KUBECONFIG": str(server.kubeconfig),
            "KONVERGE_NAMESPACE": namespace,
            "KONVERGE_FLEET": "shop",
            "TMPDIR": str(self.temporary),
        }

    async def run(self, *words: str, code: int = 0) -> dict[str, object]:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *KONVERGE, "-v", *words, "-o", "json", stdout=pipe, stderr=pipe, env=self.environment
        )
        async with asyncio.timeout(90):
            told, complained = await process.communicate()
        with self.output.open("ab") as file:
            file.write(told + complained)
        assert process.returncode == code, complained.decode()
        answer: dict[str, object] = json.loads(told)
        return answer


async def needles_of(kube: KubeClient, fleet: Fleet) -> tuple[list[Needle], Needle]:
    """The keys that are sealed, and the one that proxies mount."""
    keys = await load_keys(kube, fleet)
    sealed = [
        Needle.of("authority", keys.authorities.current.identity.key),
        Needle.of("controller", keys.controller.files.identity.key),
    ]
    return sealed, Needle.of("proxies", keys.proxies.files.identity.key)


async def test_sealed_keys_are_nowhere_in_the_clear(
    kube: KubeClient, namespace: str, api_server: ApiServer, tmp_path: Path
) -> None:
    key_file = tmp_path / "keys"
    command = Command(api_server, namespace, tmp_path)
    await command.run("keys", "generate", "--file", str(key_file))
    assert key_file.stat().st_mode & 0o777 == 0o600
    fleet = await make_fleet(kube, namespace, key_file, "sealed")
    await ensure_identity(kube, fleet)
    sealed, mounted = await needles_of(kube, fleet)
    await command.run("keys", "generate", "--file", str(key_file))
    keys = key_file.read_text().split()
    assert len(keys) == 2
    changed = await command.run("keys", "rewrap")
    assert len(changed["rewrapped"]) == 2  # type: ignore[arg-type]
    key_file.write_text(keys[0])
    shown = (await command.run("keys", "status"))["identities"]
    assert [view["current"] and view["moved"] for view in shown] == [True] * 3  # type: ignore[attr-defined]

    words = [Needle.word(f"key encryption key {n}", base64.b64decode(key)) for n, key in enumerate(keys)]
    words += [Needle.word(f"key line {n}", key.encode()) for n, key in enumerate(keys)]
    everything = [*sealed, mounted, *words]
    assert find_in_files(everything, [command.output, command.temporary]) == []
    assert find_in_processes(everything) == []
    allowed = [(namespace, fleet.proxy_secret)]
    assert await find_in_objects(everything, kube, allowed) == []
    # The same search does find what is there: the Secret that proxies mount, in the API and in the server's store.
    assert await find_in_objects([mounted], kube) == [f"Secret {namespace}/{fleet.proxy_secret}: proxies"]
    assert find_in_files([*sealed, *words], [api_server.directory]) == []
    assert find_in_files([mounted], [api_server.directory]) != []


async def test_the_command_moves_there_and_back(
    kube: KubeClient, namespace: str, api_server: ApiServer, tmp_path: Path
) -> None:
    key_file = tmp_path / "keys"
    command = Command(api_server, namespace, tmp_path)
    fleet = await make_fleet(kube, namespace, key_file, "secret")
    await ensure_identity(kube, fleet)
    before = await load_keys(kube, fleet)
    refused = await command.run("keys", "migrate", "--to", "sealed", code=1)
    assert refused["error"]["reason"] == "KeyEncryptionKeyMissing"  # type: ignore[index]
    await command.run("keys", "generate", "--file", str(key_file))
    await command.run("keys", "migrate", "--to", "sealed")
    names = [body["metadata"]["name"] for body in await kube.list_all(SEALED_IDENTITIES, namespace)]
    assert sorted(names) == ["shop-authority", "shop-controller-identity"]
    assert await kube.find(SECRETS, fleet.authority_secret, namespace) is None
    sealed, _ = await needles_of(kube, await load_fleet(kube, "shop", namespace))
    assert await find_in_objects(sealed, kube) == []
    await command.run("keys", "migrate", "--to", "secret")
    assert await kube.list_all(SEALED_IDENTITIES, namespace) == []
    after = await load_keys(kube, await load_fleet(kube, "shop", namespace))
    assert after.authorities.current.certificate == before.authorities.current.certificate
    assert find_in_files(sealed, [command.output, command.temporary]) == []


@pytest.mark.parametrize("turn", range(3))
async def test_a_process_that_is_killed_while_it_loads_keys_leaves_none(tmp_path: Path, turn: int) -> None:
    temporary, key = tmp_path / "tmp", tmp_path / "key"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", BUILD_CONTEXTS, str(key)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environment)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert await process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGKILL)
    await process.wait()
    needle = Needle.of("leaf", PrivateKey.from_pem(key.read_bytes()))
    assert find_in_files([needle], [temporary, Path("/dev/shm")]) == []
    assert find_in_files([needle], [key]) == [f"{key}: leaf"]
