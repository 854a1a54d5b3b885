"""The lab under a real control plane, in a network of its own. Skipped where its programs are missing."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab_tools import COMMAND, echo, environment, survivors

from konverge.errors import KonvergeError
from konverge.lab.realplane import require_assets
from konverge.lab.supervisor.states import read_state

pytestmark = [pytest.mark.lab, pytest.mark.kube, pytest.mark.slow]

PROBE = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from lab_tools import ask, until
from konverge.kube.client import KubeClient
from konverge.kube.resources import DEPLOYMENTS, SERVICES
from konverge.lab.supervisor.waiting import wait_for_address, wait_for_deployment

async def main():
    async with await KubeClient.connect() as client:
        for item in json.loads(sys.argv[2]):
            await client.create(DEPLOYMENTS if item["kind"] == "Deployment" else SERVICES, item)
        await wait_for_deployment(client, "default", "web", 60)
        service = await wait_for_address(client, "default", "web", 30)
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"], 9000
    async def answers():
        try:
            return bool(await ask(address))
        except OSError:
            return False
    await until(answers)
    print(json.dumps({"address": address[0], "pods": sorted({await ask(address) for _ in range(30)})}))

asyncio.run(main())
"""


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env=environment(home), capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture
def home(tmp_path: Path) -> Any:
    try:
        require_assets()
    except KonvergeError as error:
        pytest.skip(error.message)
    yield tmp_path
    run(tmp_path, "down", "--all")


def test_pods_run_and_are_balanced_under_a_real_control_plane(home: Path) -> None:
    up = run(home, "up", "-d", "--no-sample", "--control-plane", "real", "--sync-delay", "0.2")
    if "NoPrivateNetwork" in up.stderr:
        pytest.skip("no network namespaces here")
    assert up.returncode == 0, up.stderr
    state = read_state(home / "labs" / "lab")
    assert state is not None
    assert state.private
    assert json.loads(run(home, "status", "-o", "json").stdout)["healthy"]
    objects = json.dumps(echo("web", 2, type="LoadBalancer"))
    probe = run(home, "run", "--", sys.executable, "-c", PROBE, str(Path(__file__).parent), objects)
    assert probe.returncode == 0, probe.stderr
    found = json.loads(probe.stdout)
    assert found["address"].startswith("10.244.254.")
    assert len(found["pods"]) == 2
    assert run(home, "down").returncode == 0
    assert survivors(state.marker) == []
