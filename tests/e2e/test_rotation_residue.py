"""A rotation leaves no private key behind: not in logs, Prefect's database and results, files, arguments, objects.

Every key that is ever stored is collected, and then looked for in everything that the rotations left, and in what
processes and temporary files held meanwhile. Prefect is set to keep as much as it can: all results, all logs.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import pytest_asyncio

from konverge.cli.demo.staging import NAMESPACE
from konverge.errors import KonvergeError
from konverge.kube.resources import CONFIG_REVISIONS, LEASES, PROXY_FLEETS, PROXY_INSTANCES, SECRETS, Object
from konverge.model.fleet import Fleet
from konverge.operate.orchestrator import client_environment, start_server, stop_server
from konverge.pki.keys import PrivateKey
from tests.e2e.living_fleet import command, given_a_living_fleet, until
from tests.e2e.sampling import Sampler
from tests.e2e.scanning import (
    Needle,
    find_in_database,
    find_in_files,
    find_in_objects,
    find_in_processes,
    walk,
)
from tests.e2e.scenario import FLEET, Scenario, open_scenario

pytestmark = [
    pytest.mark.lab,
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(400),
]

PROXIES = 1
ROOT = Path(__file__).parents[2]
TALKATIVE = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "konverge,tasks,flows,httpx,asyncio",
}
STORED_KEYS = 8
"""Authority, controller and proxies; both leaves anew; the successor, and both leaves of it."""


@dataclass
class Residue:
    """A scenario, and the places in which something may be left."""

    scenario: Scenario
    place: Path
    needles: dict[str, Needle] = field(default_factory=dict, repr=False)

    @property
    def temporary(self) -> Path:
        return self.place / "tmp"

    @property
    def database(self) -> Path:
        return self.place / "server" / "prefect.db"

    @property
    def results(self) -> Path:
        return self.place / "flows" / "storage"

    @property
    def keys(self) -> list[Needle]:
        return list(self.needles.values())

    def note(self, secret: Object) -> None:
        """Keep the keys of one version of a Secret."""
        for name, value in (secret.get("data") or {}).items():
            content = base64.b64decode(value)
            if b"PRIVATE KEY" in content:
                where = f"{secret['metadata']['name']}/{name} of {secret['metadata']['resourceVersion']}"
                key = PrivateKey.from_pem(content)
                self.needles.setdefault(key.to_pem().decode(), Needle.of(where, key))

    async def find(self) -> list[str]:
        """Return every place that holds a key and must not; anonymous keys, of probes, where no others belong."""
        fleet = await self.scenario.fleet()
        marked = [*self.keys, Needle.word("any PEM key", b"PRIVATE KEY-----")]
        found = await asyncio.to_thread(find_in_files, marked, self.own_files())
        found += await asyncio.to_thread(find_in_database, marked, self.database)
        found += await asyncio.to_thread(find_in_files, self.keys, self.lab_files())
        found += await asyncio.to_thread(find_in_processes, self.keys)
        return found + await find_in_objects(self.keys, self.scenario.kube, permitted(fleet))

    def own_files(self) -> list[Path]:
        """What is in Prefect's directories, logs and temporary files, but for the operator's own key.

        The Kubernetes client writes that of a kubeconfig into a temporary file for as long as a process runs.
        """
        kubeconfig = self.scenario.lab.kubeconfig.read_bytes()
        return [path for path in walk([self.place]) if not is_within(path, kubeconfig)]

    def lab_files(self, *, permitted: bool = False) -> list[Path]:
        """The lab's files; with ``permitted`` only those that have to hold keys."""
        files = walk([self.scenario.lab.settings.home])
        return [path for path in files if is_permitted(path) is permitted]


def is_permitted(path: Path) -> bool:
    """Whether a file belongs to the Secret volume that a proxy mounts, or is the API server's own store."""
    return "/volumes/identity/" in str(path) or (path.parent.name == "apiserver" and path.stem == "store")


def is_within(path: Path, kubeconfig: bytes) -> bool:
    """Whether a kubeconfig embeds what a file holds."""
    try:
        content = path.read_bytes() if path.parent.name == "tmp" else b""
    except OSError:
        return False
    return bool(content) and base64.b64encode(content) in kubeconfig


def find_port() -> int:
    """A port of this server's own: others in this session take Prefect's usual one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def permitted(fleet: Fleet) -> list[tuple[str, str]]:
    names = (fleet.authority_secret, fleet.controller_secret, fleet.proxy_secret)
    return [(fleet.namespace, name) for name in names]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def residue(tmp_path_factory: pytest.TempPathFactory, lab_home: Path) -> AsyncIterator[Residue]:
    place = tmp_path_factory.mktemp("residue")
    (place / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place / "tmp"))
        patch.setenv("KONVERGE_PREFECT_HOME", str(place / "flows"))
        for name, value in TALKATIVE.items():
            patch.setenv(name, value)
        server = await start_server(place / "server", find_port())
        try:
            async with open_scenario("residue", lab_home / "residue", server) as scenario:
                await given_a_living_fleet(scenario, PROXIES)
                opened = Residue(scenario, place)
                async with collecting(opened), working(opened):
                    yield opened
        finally:
            await stop_server(place / "server")


@asynccontextmanager
async def collecting(residue: Residue) -> AsyncIterator[None]:
    """Collect the keys of every version of every Secret of the fleet."""
    kube = residue.scenario.kube

    async def follow() -> None:
        while True:
            found, version = await kube.list_at(SECRETS, NAMESPACE)
            for body in found:
                residue.note(body)
            with suppress(KonvergeError):
                async for _, body in kube.watch(SECRETS, NAMESPACE, version=version):
                    residue.note(body)

    task = asyncio.create_task(follow())
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait({task})


@asynccontextmanager
async def working(residue: Residue) -> AsyncIterator[None]:
    """A Prefect worker with the deployments of prefect.yaml, as in a cluster."""
    ended = await prefect(residue, "-c", "from konverge.cli.main import run; run()", "server", "bootstrap")
    assert ended == 0, residue.place / "prefect.log"
    words = ("-m", "prefect", "worker", "start", "--pool", "konverge", "--type", "process")
    worker = await start_python(residue, "worker.log", *words)
    try:
        yield
        assert worker.returncode is None
    finally:
        with suppress(ProcessLookupError):
            worker.terminate()
        try:
            await asyncio.wait_for(worker.wait(), 60)
        except TimeoutError:
            worker.kill()
            await worker.wait()


async def start_python(residue: Residue, name: str, *words: str) -> asyncio.subprocess.Process:
    """Start a command of Python as a client of the Prefect server, with its output in a log of its own."""
    with (residue.place / name).open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, *words),
            cwd=ROOT,
            env=client_environment(residue.scenario.prefect),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def prefect(residue: Residue, *words: str) -> int:
    """Run a command of Python to its end."""
    process = await start_python(residue, "prefect.log", *words)
    try:
        async with asyncio.timeout(180):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_deployment(residue: Residue, **parameters: Any) -> None:
    """Have the worker run cert-rotation; it ends when the run does."""
    given = orjson.dumps({"target": residue.scenario.target.to_json(), "jitter_seconds": 0, **parameters}).decode()
    words = ("deployment", "run", "cert-rotation/fleet", "--params", given, "--watch", "--watch-interval", "1")
    assert await prefect(residue, "-m", "prefect", *words) == 0, residue.place / "prefect.log"


def count_rows(residue: Residue, table: str) -> int:
    with closing(sqlite3.connect(f"file:{residue.database}?mode=ro", uri=True)) as database:
        return int(database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])


async def test_a_rotation_leaves_no_key_behind(residue: Residue) -> None:
    scenario = residue.scenario
    places = [residue.temporary, residue.place / "flows", Path("/dev/shm")]
    async with Sampler(places) as sampler:
        ended = await command(scenario, "certs", "rotate", "-o", "json")
        (residue.place / "command.log").write_text(ended.out + ended.err)
        assert ended.code == 0, ended.err
        await run_deployment(residue, kind="authority")
    await then_it_was_recorded(residue)
    assert len(residue.keys) == STORED_KEYS, sorted(needle.name for needle in residue.keys)
    assert sampler.count > 50
    found = sampler.find(residue.keys) + await residue.find()
    assert found == [], "\n".join(found)
    # The same search does find the keys where they have to be.
    found = await find_in_objects(residue.keys, scenario.kube)
    assert {line.split(":")[0] for line in found} == {
        f"Secret {namespace}/{name}" for namespace, name in permitted(await scenario.fleet())
    }
    assert find_in_files(residue.keys, residue.lab_files(permitted=True)) != []


async def then_it_was_recorded(residue: Residue) -> None:
    """What Prefect keeps of two runs is written: it comes later than their end."""

    async def recorded() -> bool:
        least = {"flow_run": 2, "task_run": 11, "artifact": 6, "log": 50}
        return all(count_rows(residue, table) >= count for table, count in least.items())

    await until(recorded, "the runs are in Prefect's database", 60.0)
    assert any(walk([residue.results])), "results were kept"
    assert (residue.place / "worker.log").stat().st_size > 0


async def test_what_is_left_in_any_of_these_places_is_found(residue: Residue) -> None:
    """A key that is planted in each of them; so that nothing was found means that nothing was there."""
    key = PrivateKey.generate()
    residue.needles[key.to_pem().decode()] = Needle.of("planted", key)
    planted = await plant(residue, key.to_pem().decode())
    found = [line for line in await residue.find() if line.endswith(": planted")]
    for place in planted:
        assert any(place in line for line in found), f"{place} is not among {found}"


async def plant(residue: Residue, text: str) -> list[str]:
    """Leave a key wherever a mistake could; return the places."""
    kube = residue.scenario.kube
    folded = base64.b64encode(gzip.compress(text.encode())).decode()
    log = next(path for path in residue.lab_files() if path.suffix == ".log")
    for path in (residue.temporary / "left", residue.results / "result", residue.place / "worker.log", log):
        with path.open("a") as file:
            file.write(orjson.dumps({"result": folded if "result" in path.name else text}).decode())
    async with httpx.AsyncClient(base_url=residue.scenario.prefect.url, timeout=30, trust_env=False) as http:
        flow = (await http.post("/flows/", json={"name": "planted"})).json()["id"]
        run = {"flow_id": flow, "parameters": {"deep": [{"key": text}]}, "state": {"type": "COMPLETED"}}
        (await http.post("/flow_runs/", json=run)).raise_for_status()
        artifact = {"key": "planted", "type": "table", "data": orjson.dumps([{"result": folded}]).decode()}
        (await http.post("/artifacts/", json=artifact)).raise_for_status()
        line = {"name": "x", "level": 10, "message": text, "timestamp": "2026-01-01T00:00:00Z"}
        (await http.post("/logs/", json=[line])).raise_for_status()
    change: Object = {"metadata": {"annotations": {"planted": base64.b64encode(text.encode()).decode()}}}
    objects = []
    for kind in (PROXY_FLEETS, PROXY_INSTANCES, CONFIG_REVISIONS, LEASES):
        name = (await kube.list_all(kind, NAMESPACE))[0]["metadata"]["name"]
        await kube.patch(kind, name, change, NAMESPACE)
        objects.append(f"{kind.kind} {NAMESPACE}/{name}")
    status = {"status": {"message": text}}
    await kube.patch(PROXY_FLEETS, FLEET, status, NAMESPACE, subresource="status")
    rows = ["flow_run.parameters", "artifact.data", "log.message"]
    return ["tmp/left", "storage/result", "worker.log", log.name, *rows, *objects]
