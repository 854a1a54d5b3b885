"""What the client makes of a token that cannot be read, of a full pool, and of an object with nothing in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from konverge.errors import Forbidden, KonvergeError, Unavailable
from konverge.kube import client as client_module
from konverge.kube.client import UNAUTHORIZED, KubeClient, map_status
from konverge.kube.leasing import Candidate
from konverge.kube.resources import LEASES, SERVICES
from tests.unit.operate.fake_kube import FakeKube


@pytest.mark.parametrize(
    "error", [ConfigException("Token file exists but empty."), FileNotFoundError("token"), PermissionError("token")]
)
async def test_a_token_that_cannot_be_read_now_may_be_read_later(error: Exception) -> None:
    def refresh(_configuration: Configuration) -> None:
        raise error

    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    configuration.api_key["BearerToken"] = "bearer t0k3n"
    configuration.refresh_api_key_hook = refresh
    async with KubeClient(configuration) as kube:
        with pytest.raises(Unavailable) as caught:
            await kube.request("GET", "/version")
        assert caught.value.reason == "TokenUnreadable"
        with pytest.raises(Unavailable):
            await anext(kube.watch(SERVICES))
    assert "t0k3n" not in str(caught.value)


async def test_a_watch_does_not_wait_for_ever_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "REQUEST_TIMEOUT", 0.2)
    asked = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        await writer.drain()
        asked.set()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    async def follow(kube: KubeClient) -> None:
        async for _ in kube.watch(SERVICES):
            pytest.fail("nothing happens")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    configuration.connection_pool_maxsize = 1
    async with server, KubeClient(configuration) as kube:
        first = asyncio.create_task(follow(kube))
        await asyncio.wait_for(asked.wait(), 30)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(follow(kube), 30)
        assert not first.done(), "one that has its connection waits for events"
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize(("status", "reason"), [(401, UNAUTHORIZED), (403, "Forbidden")])
def test_who_is_not_known_is_told_from_who_may_not(status: int, reason: str) -> None:
    error: KonvergeError = map_status(status, b"{}", "GET /api/v1/services")
    assert isinstance(error, Forbidden)
    assert error.reason == reason


async def test_a_lease_without_a_spec_is_free() -> None:
    kube = FakeKube()
    lease: dict[str, Any] = {"metadata": {"name": "shop", "namespace": "default"}}
    kube.put(LEASES, lease)
    candidate = Candidate(kube, "shop", "default", "c0")
    campaign = asyncio.create_task(candidate.run())
    try:
        await asyncio.wait_for(candidate.leading.wait(), 30)
        assert kube.one(LEASES, "shop")["spec"]["holderIdentity"] == "c0"
    finally:
        campaign.cancel()
        await asyncio.gather(campaign, return_exceptions=True)
