"""Calls the Admin API of every proxy all the time with the controller's own client, as the controller does."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from konverge.errors import KonvergeError
from konverge.kube.resources import SECRETS, Object
from konverge.model.fleet import Fleet
from konverge.operate.clock import utc_now
from konverge.operate.connecting import GatewayPool
from konverge.operate.discovering import discover_proxies
from konverge.operate.identities import load_controller
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, read_files
from tests.e2e.scenario import Scenario

PAUSE = 0.05


@dataclass
class Calls:
    """What became of the calls; ``excused`` proxies are down on purpose and are not called."""

    made: int = 0
    swaps: int = 0
    failures: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)

    def then_none_failed(self, at_least: int = 50) -> None:
        assert self.failures == [], f"{len(self.failures)} of {self.made} calls failed"
        assert self.made >= at_least


@asynccontextmanager
async def calling(scenario: Scenario) -> AsyncIterator[Calls]:
    """Call while the block runs: each proxy every few milliseconds, on kept connections and on fresh ones."""
    fleet, calls = await scenario.fleet(), Calls()
    async with GatewayPool(fleet, await load_controller(scenario.kube, fleet)) as pool:
        work = [
            asyncio.create_task(_follow(scenario, fleet, pool, calls)),
            asyncio.create_task(_call_forever(scenario, fleet, pool, calls)),
        ]
        try:
            yield calls
            for task in work:
                assert not task.done(), task
        finally:
            for task in work:
                task.cancel()
            await asyncio.wait(work)


async def _follow(scenario: Scenario, fleet: Fleet, pool: GatewayPool, calls: Calls) -> None:
    """Use the stored identity from the moment at which it changes."""
    names = f"metadata.name={fleet.controller_secret}"
    while True:
        found, version = await scenario.kube.list_at(SECRETS, fleet.namespace, fields=names)
        await _use(pool, found[0])
        try:
            async for kind, body in scenario.kube.watch(SECRETS, fleet.namespace, version=version, fields=names):
                if kind == "MODIFIED":
                    calls.swaps += 1
                    await _use(pool, body)
        except KonvergeError:
            continue


async def _use(pool: GatewayPool, secret: Object) -> None:
    data: dict[str, Any] = {key: base64.b64decode(value) for key, value in secret["data"].items()}
    await pool.use(read_files(data, utc_now(), CONTROLLER_BUNDLE_FILE))


async def _call_forever(scenario: Scenario, fleet: Fleet, pool: GatewayPool, calls: Calls) -> None:
    started = time.monotonic()
    while True:
        proxies = await discover_proxies(scenario.kube, fleet)
        for proxy in proxies:
            if proxy.name in calls.excused:
                continue
            try:
                await pool.reach(proxy).loaded_hash()
            except KonvergeError as error:
                if proxy.name not in calls.excused:
                    calls.failures.append(f"{time.monotonic() - started:.2f} s {proxy.name} {error.reason} {error}")
            calls.made += 1
        await asyncio.sleep(PAUSE)
