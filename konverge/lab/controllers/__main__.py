"""Runs the lab's controllers: ``python -m konverge.lab.controllers --kubeconfig FILE``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient, wait_until_reachable
from konverge.lab.controllers.deployments import Deployments
from konverge.lab.controllers.disruptions import DisruptionBudgets
from konverge.lab.controllers.endpointslices import EndpointSlices
from konverge.lab.controllers.loadbalancers import LoadBalancers
from konverge.lab.controllers.reconciling import Controller, World, running
from konverge.lab.controllers.replicasets import ReplicaSets
from konverge.lab.ending import catch_signals
from konverge.lab.pod import die_with_parent

API_SECONDS = 30.0
"""How long the API server may take to answer for the first time."""


def build_controllers(world: World, *, load_balancer_cidr: str, only_load_balancers: bool) -> list[Controller]:
    """Return the controllers; all but one are kube-controller-manager's work where there is a real one."""
    balancers: list[Controller] = [LoadBalancers(world, load_balancer_cidr)]
    if only_load_balancers:
        return balancers
    kinds: list[type[Controller]] = [Deployments, ReplicaSets, EndpointSlices, DisruptionBudgets]
    return [*balancers, *(kind(world) for kind in kinds)]


async def serve(arguments: argparse.Namespace) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = catch_signals()
    async with await KubeClient.connect(arguments.kubeconfig) as client:
        await wait_until_reachable(client, API_SECONDS)
        world = World(client)
        controllers = build_controllers(
            world,
            load_balancer_cidr=arguments.load_balancer_cidr,
            only_load_balancers=arguments.only_load_balancers,
        )
        async with running(world, controllers) as over:
            sys.stdout.write(json.dumps({"ready": True, "component": "controllers"}) + "\n")
            sys.stdout.flush()
            stopped = asyncio.create_task(stop.wait())
            waiting: set[asyncio.Task[Any]] = {over, stopped}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if over.done():
                await over


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="konverge.lab.controllers", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--load-balancer-cidr", default="127.20.8.0/24")
    parser.add_argument("--only-load-balancers", action="store_true")
    parser.add_argument("--log-level", default="INFO")
    return parser.parse_args(words)


def main() -> int:
    """Run the process; 0 after a signal, 1 where the API server cannot be used."""
    parent = os.getppid()
    die_with_parent(parent)
    arguments = parse_arguments()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(serve(arguments))
    except KonvergeError as error:
        logging.getLogger(__name__).error("%s: %s", error.reason, error.message)
        return 1
    except TimeoutError:
        logging.getLogger(__name__).error("ApiUnreachable: no answer within %.0f seconds", API_SECONDS)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
