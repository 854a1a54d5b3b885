"""Runs the lab's balancer: ``python -m konverge.lab.balancer --kubeconfig FILE --node-address IP``."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient, wait_until_reachable
from konverge.lab.balancer.balancing import Balancer
from konverge.lab.balancer.serving import serving
from konverge.lab.balancer.settings import SYNC_SECONDS, BalancerSettings
from konverge.lab.ending import catch_signals
from konverge.lab.pod import die_with_parent, raise_file_limit

API_SECONDS = 30.0
"""How long the API server may take to answer for the first time."""


async def serve(kubeconfig: Path, settings: BalancerSettings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = catch_signals()
    async with await KubeClient.connect(kubeconfig) as client:
        await wait_until_reachable(client, API_SECONDS)
        balancer = Balancer(client, settings)
        async with balancer.running(), serving(balancer, settings.http_host, settings.http_port) as bound:
            line = {"ready": True, "component": "balancer", "http": f"{bound[0]}:{bound[1]}"}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            await stop.wait()


def parse_arguments(words: list[str] | None = None) -> tuple[Path, BalancerSettings, str]:
    """Read the command line: the kubeconfig, the settings, the log level."""
    parser = argparse.ArgumentParser(prog="konverge.lab.balancer", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--node-address", default="127.20.0.1", help="where NodePorts listen")
    parser.add_argument("--sync-delay", type=float, default=SYNC_SECONDS, help="seconds; 0: no delay at all")
    parser.add_argument("--choice", choices=("random", "round-robin"), default="random")
    parser.add_argument("--http", default="", help="HOST:PORT of /metrics, /healthz and /lab/...")
    parser.add_argument("--log-level", default="INFO")
    found = parser.parse_args(words)
    host, _, port = (found.http or f"{found.node_address}:10249").rpartition(":")
    settings = BalancerSettings(found.node_address, found.sync_delay, found.choice, host, int(port))
    return found.kubeconfig, settings, found.log_level


def main() -> int:
    """Run the process; 0 after a signal, 1 where the API server or an address cannot be used."""
    die_with_parent(os.getppid())
    kubeconfig, settings, level = parse_arguments()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    raise_file_limit()
    log = logging.getLogger(__name__)
    try:
        asyncio.run(serve(kubeconfig, settings))
    except KonvergeError as error:
        log.error("%s: %s", error.reason, error.message)
        return 1
    except TimeoutError:
        log.error("ApiUnreachable: no answer within %.0f seconds", API_SECONDS)
        return 1
    except OSError as error:
        log.error("AddressUnusable: %s:%d: %s", settings.http_host, settings.http_port, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
