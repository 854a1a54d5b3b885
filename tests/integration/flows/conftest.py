"""One Prefect server for all tests of flows: in this process for its client, as a process for `flows.run`."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from prefect.testing.utilities import prefect_test_harness

from konverge.operate.orchestrator import PrefectServer, start_server, stop_server


@pytest.fixture(scope="session")
def harness() -> Iterator[None]:
    """A server with a database of its own that flows of this process talk to."""
    with prefect_test_harness(server_startup_timeout=180):
        yield
    collect_clients()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What Prefect leaves to the collector goes with its module, so that no other test is blamed for it."""
    yield
    collect_clients()


def collect_clients() -> None:
    """Collect what nobody has closed, without a word; what is ours is collected and judged before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrefectServer]:
    """A server as the command starts it."""
    home = tmp_path_factory.mktemp("prefect")
    started = await start_server(home)
    try:
        yield started
    finally:
        await stop_server(home)
