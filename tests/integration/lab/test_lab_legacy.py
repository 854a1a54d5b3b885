"""The lab with the legacy topology: load balancer, proxies with a controller each, sample applications."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from lab_tools import survivors, until

from konverge.kube.resources import INGRESSES, PODS
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.settings import LabSettings

pytestmark = [pytest.mark.lab, pytest.mark.slow]


async def fetch(address: tuple[str, int], host: str) -> tuple[int, Any]:
    """Send one request on a fresh connection; return status and JSON body."""
    url = f"http://{address[0]}:{address[1]}/"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(url, headers={"Host": host}) as answer,
    ):
        return answer.status, await answer.json(content_type=None)


async def test_legacy_topology_serves_the_sample_and_publishes_its_address(tmp_path: Path) -> None:
    settings = LabSettings(name="legacy", home=tmp_path, legacy=2, sample=True, sync_delay=0.2)
    async with Lab.start(settings) as lab, await lab.client() as client:
        address = await lab.address_of("legacy-kong-proxy", "kong", "kong-proxy")

        async def serves() -> bool:
            return (await fetch(address, "shop.lab.test"))[0] == 200

        async def published() -> bool:
            items = await client.list_all(INGRESSES)
            shown = [(item.get("status") or {}).get("loadBalancer") or {} for item in items]
            return bool(shown) and all({"ip": address[0]} in (status.get("ingress") or []) for status in shown)

        # A proxy is Ready once any configuration is loaded; the sample's may be a sync later.
        await until(serves)
        await until(published)
        answers = [await fetch(address, "shop.lab.test") for _ in range(30)]
        assert {status for status, _ in answers} == {200}
        backends = {pod["metadata"]["name"] for pod in await client.list_all(PODS, "sample", labels="app=shop")}
        assert {body["pod"] for _, body in answers} <= backends
        assert (await fetch(address, "unknown.lab.test"))[0] == 404
    assert survivors(lab.marker) == []
