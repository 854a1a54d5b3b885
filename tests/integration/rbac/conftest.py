"""A Prefect server and a lab in which everything runs under the rights that the chart grants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from konverge.operate.orchestrator import PrefectServer, start_server, stop_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrefectServer]:
    """A local server with a database of its own."""
    home = tmp_path_factory.mktemp("prefect")
    server = await start_server(home)
    try:
        yield server
    finally:
        await stop_server(home)


@pytest.fixture(scope="session")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for the state of the lab that is not the user's."""
    return tmp_path_factory.mktemp("labs")
