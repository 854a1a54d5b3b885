"""The API server under test: $KONVERGE_CONFORMANCE_KUBECONFIG or --kubeconfig, else the stand-in as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_wire import Api, wait_for


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    given = os.environ.get("KONVERGE_CONFORMANCE_KUBECONFIG") or request.config.getoption("--kubeconfig", None)
    if given:
        yield Path(given)
        return
    directory = tmp_path_factory.mktemp("apiserver")
    command = [sys.executable, "-m", "konverge.lab.apiserver", "--listen", "127.0.0.1:0", "--dir", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Path(json.loads(process.stdout.readline())["kubeconfig"])
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="session")
def credentials(kubeconfig: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    return loaded


@pytest.fixture
async def api(credentials: dict[str, Any]) -> AsyncIterator[Api]:
    async with Api(credentials) as client:
        yield client


@pytest.fixture
async def ns(api: Api) -> AsyncIterator[str]:
    """A namespace of its own, with the account and the authority that pods need."""
    made = await api.ok("POST", "/api/v1/namespaces", {"metadata": {"generateName": "conformance-"}})
    name = made["metadata"]["name"]

    async def furnished() -> bool:
        parts = ("serviceaccounts/default", "configmaps/kube-root-ca.crt")
        answers = [await api.send("GET", f"/api/v1/namespaces/{name}/{part}") for part in parts]
        return all(answer.status == 200 for answer in answers)

    await wait_for(furnished)
    yield name
    await api.send("DELETE", f"/api/v1/namespaces/{name}")
