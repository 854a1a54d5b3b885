"""Reads what is set up on the Prefect server, over its REST API; Prefect is never imported here."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from konverge.checks.measuring import read_skew
from konverge.checks.scene import Orchestrator, Reading
from konverge.errors import Unavailable
from konverge.operate.clock import Clock
from konverge.operate.orchestrator import default_home, find_server, read_authorization

TIMEOUT = 5.0

Read = Callable[[Awaitable[Orchestrator]], Awaitable[Reading[Orchestrator]]]


async def read_orchestrator(clock: Clock, read: Read) -> Reading[Orchestrator] | None:
    """Read the configured server or the local one; None where there is neither."""
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        found = await find_server(default_home())
        if found is None:
            return None
        url = found.url
    return await read(_read_server(url, clock))


async def _read_server(url: str, clock: Clock) -> Orchestrator:
    try:
        async with httpx.AsyncClient(
            base_url=url.rstrip("/") + "/", timeout=TIMEOUT, headers=read_authorization(os.environ)
        ) as client:
            return await _ask_server(client, url, clock)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise Unavailable(
            f"The Prefect server at {url} does not answer as one: {str(error) or type(error).__name__}",
            reason="PrefectUnreachable",
            hint="reference/errors.md#prefect-unreachable",
        ) from error


async def _ask_server(client: httpx.AsyncClient, url: str, clock: Clock) -> Orchestrator:
    answer = await client.get("admin/version")
    answer.raise_for_status()
    flows = {flow["id"]: flow["name"] for flow in await _filter(client, "flows/filter")}
    deployments = await _filter(client, "deployments/filter")
    names = {d["id"]: f"{flows.get(d['flow_id'], '?')}/{d['name']}" for d in deployments}
    scheduled = {
        names[d["id"]]
        for d in deployments
        if not d.get("paused") and any(schedule.get("active") for schedule in d.get("schedules") or ())
    }
    name = os.environ.get("KONVERGE_POOL") or "konverge"
    pool = await client.get(f"work_pools/{name}")
    workers = await _filter(client, f"work_pools/{name}/workers/filter") if pool.status_code == 200 else []
    automations = await _filter(client, "automations/filter")
    return Orchestrator(
        url=url,
        version=str(answer.json()),
        skew_seconds=read_skew(dict(answer.headers), clock()),
        pool=pool.status_code == 200,
        workers_online=sum(1 for worker in workers if worker.get("status") == "ONLINE"),
        deployments=frozenset(names.values()),
        scheduled=frozenset(scheduled),
        automations=frozenset(automation["name"] for automation in automations if automation.get("enabled", True)),
    )


async def _filter(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    answer = await client.post(path, json={"limit": 200})
    answer.raise_for_status()
    rows: list[dict[str, Any]] = answer.json()
    return rows
