"""Two controllers, kills, partitions and a failing API: one acts at a time, no gateway goes back, all converge."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.town import Gateway, Town, open_town, until

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(300)]

SEED = int(os.environ.get("KONVERGE_CHAOS_SEED", "0")) or random.randrange(1, 10**6)


async def settle(town: Town, count: int) -> None:
    """Start so many controllers and wait until the fleet serves."""
    for _ in range(count):
        await town.add_controller()
    await town.change("first")
    await town.converge("first")


async def test_kills_of_the_leader_leave_one_leader_and_every_gateway_on_the_newest(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    async with open_town(tmp_path, 3) as town:
        await settle(town, 2)
        for round_ in range(2):
            leader = await until(town.leader, "somebody leads")
            await town.change(f"round-{round_}")
            await asyncio.sleep(rng.uniform(0.0, 0.6))
            await leader.process.end(rng.choice((signal.SIGKILL, signal.SIGTERM)))
            await town.change(f"after-{round_}")
            took = await town.converge(f"after-{round_}")
            print(f"round {round_}: on all gateways {took:.1f} s after the leader was gone")
            await leader.process.start()
        await town.check_order()


async def test_a_leader_that_is_cut_off_stops_before_another_one_acts(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    async with open_town(tmp_path, 3) as town:
        await settle(town, 2)
        leader = await until(town.leader, "somebody leads")
        # Frozen, as by a partition or a stopped machine: it can neither renew nor learn that its time is over.
        assert leader.process.running is not None
        leader.process.running.send_signal(signal.SIGSTOP)
        await town.change("meanwhile")
        others = [one for one in town.controllers if one is not leader]
        town.controllers = others
        took = await town.converge("meanwhile", 90)
        print(f"the other one took over and served {took:.1f} s after the freeze")
        leader.process.running.send_signal(signal.SIGCONT)
        town.controllers = [leader, *others]
        await town.change("afterwards")
        await town.converge("afterwards")
        await town.check_order()
        assert "Traceback" not in leader.process.log.read_text()


async def test_an_api_that_fails_in_every_way_costs_nothing_but_time(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    faults = [
        {"action": "status", "code": 503, "share": 0.5},
        {"action": "status", "code": 500, "verb": "update", "share": 0.7},
        {"action": "latency", "seconds": 0.4},
        {"action": "reset", "share": 0.4},
        {"action": "stall-watches"},
    ]
    async with open_town(tmp_path, 3) as town:
        await settle(town, 2)
        for number, fault in enumerate(rng.sample(faults, 2)):
            await town.change(f"before-{number}")
            await town.fault(**fault, user="")
            await asyncio.sleep(rng.uniform(0.5, 2.0))
            await town.kube.request("POST", "/lab/compact") if rng.random() < 0.5 else None
            await town.calm()
            await town.kube.request("POST", "/lab/watches/cut", body={})
            await town.change(f"during-{number}")
            took = await town.converge(f"during-{number}")
            print(f"{fault}: converged {took:.1f} s after it was over")
        await town.check_order()
        assert all(controller.process.alive for controller in town.controllers)


async def test_the_fleet_converges_soon_after_the_api_was_gone_for_longer_than_a_lease(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    outages = [{"action": "status", "code": 503}, {"action": "reset"}]
    async with open_town(tmp_path, 3) as town:
        await settle(town, 2)
        for number, outage in enumerate(rng.sample(outages, 2)):
            await town.fault(**outage, user="")
            lost = asyncio.create_task(until(lambda: nobody_leads(town), "whoever led stops by itself"))
            await asyncio.sleep(10.0)
            await lost
            await town.calm()
            await town.change(f"after-{number}")
            took = await town.converge(f"after-{number}")
            print(f"{outage}: converged {took:.1f} s after an outage of 10 s")
        await town.check_order()
        assert all(controller.process.alive for controller in town.controllers)


async def nobody_leads(town: Town) -> bool:
    return await town.leader() is None


async def test_a_restart_of_the_api_server_meets_no_storm(tmp_path: Path) -> None:
    async with open_town(tmp_path, 2) as town:
        await settle(town, 1)
        controller = town.controllers[0]
        await asyncio.sleep(2)  # the last states are written
        quiet = await controller.metric("kubernetes_requests_total")
        await asyncio.sleep(6)
        before = await controller.metric("kubernetes_requests_total")
        print(f"at rest: {(before - quiet) * 10:.0f} requests per minute")
        assert (before - quiet) * 10 <= 120
        samples: list[float] = []

        async def sample() -> None:
            last = before
            while True:
                await asyncio.sleep(1.0)
                sent = await controller.metric("kubernetes_requests_total")
                samples.append(sent - last)
                last = sent

        sampling = asyncio.create_task(sample())
        await town.api.restart(away=4.0)
        await town.change("back")
        took = await town.converge("back", 90)
        sampling.cancel()
        print(f"requests per second: {samples}; converged {took:.1f} s after the restart")
        # At first every watch asks once, at the shared pace; nothing after that is faster.
        assert max(samples) <= 60, samples
        assert sum(samples) / len(samples) <= 30, samples
        await town.check_order()


async def test_newcomers_are_in_traffic_soon_and_a_restart_with_an_old_configuration_is_found(tmp_path: Path) -> None:
    async with open_town(tmp_path, 2) as town:
        await settle(town, 1)
        waited = []
        for _ in range(4):
            gateway = await town.add_gateway()
            await until(lambda one=gateway: up(one), "the gateway listens")
            started = time.monotonic()
            await until(lambda one=gateway: town.serves(one), "the newcomer is in traffic")
            waited.append(time.monotonic() - started)
        print(f"from listening to traffic: {[f'{seconds:.2f}' for seconds in waited]} s")
        old = town.gateways[0]
        stored = (old.directory / "prefix").exists()
        await old.process.end(signal.SIGKILL)
        await town.change("second")
        await old.process.start()
        await town.converge("second", 90)
        assert stored, "it came back with what it had on its disk"


async def up(gateway: Gateway) -> bool:
    return await gateway.hash() != ""
