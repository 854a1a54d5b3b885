"""The page of a flow run on a real Prefect server: an operator sees the tasks and the artifacts of a sync."""

from __future__ import annotations

import gc
import inspect
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from devtools import Browser
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.config_sync import config_sync
from konverge.model.target import Target
from konverge.operate.orchestrator import PrefectServer, start_server, stop_server
from tests.integration.flows.test_flows_sync import World

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest_asyncio.fixture
async def server(chromium: str, tmp_path: Path) -> AsyncIterator[PrefectServer]:
    """A server as the command starts it, and this process as its client."""
    started = await start_server(tmp_path / "prefect")
    # The one that sends events is made once for a process, and may still be bound to the server of other tests.
    drained = EventsWorker.drain_all(timeout=10, at_exit=False)
    if inspect.isawaitable(drained):
        await drained
    try:
        with temporary_settings({PREFECT_API_URL: started.url}):
            yield started
    finally:
        await stop_server(tmp_path / "prefect")
        with warnings.catch_warnings():
            # Prefect leaves its clients to the collector; what is ours is collected and judged before.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


async def test_a_sync_shows_its_tasks_and_artifacts(
    server: PrefectServer, browser: Browser, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await World(monkeypatch).open()
    state = await config_sync(target=Target(fleet="shop"), author="me", return_state=True)
    assert state.is_completed()
    run = str(state.state_details.flow_run_id)
    page = await browser.open(server.flow_run(run), 1280, 900)
    await page.until("document.body.innerText.includes('Completed')", 120)
    await page.until("document.body.innerText.includes('summarise')")
    await page.click_text("Task Runs")
    await page.until("['canary', 'wave-1', 'summarise'].every(name => document.body.innerText.includes(name))")
    await page.picture(pictures / "sync-run.png")
    await page.click_text("Artifacts")
    await page.until("document.body.innerText.toLowerCase().includes('canary')")
    await page.picture(pictures / "sync-run-artifacts.png")
