"""A stand-in server inside the test's own loop, and a raw client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from apiserver_wire import Wire, context_of

from konverge.lab.apiserver import ApiServer, Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(directory=tmp_path, bookmark_period=0.2)


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[ApiServer]:
    async with ApiServer(settings) as running:
        yield running


@pytest.fixture
async def wire(server: ApiServer) -> AsyncIterator[Wire]:
    connector = aiohttp.TCPConnector(ssl=context_of(server))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Wire(session, server.url)
