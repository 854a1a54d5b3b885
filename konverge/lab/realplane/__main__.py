"""Runs a real control plane in the foreground: ``python -m konverge.lab.realplane --dir DIR [--bind ADDR]``.

Prints one JSON line when it is ready ({"server", "kubeconfig", "directory", "pids"}) and ends on SIGTERM or
SIGINT. Exit codes: 0 ended on request, 1 a program failed, 3 programs are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from konverge.errors import CheckRefused, KonvergeError
from konverge.lab.pod import die_with_parent
from konverge.lab.realplane.plane import PlaneSettings, RealControlPlane


def main() -> int:
    """Parse the command line, run until a signal, return the exit code."""
    die_with_parent(os.getppid())
    options = _parse()
    settings = PlaneSettings(
        directory=options.dir,
        bind=options.bind,
        port=options.port,
        service_cidr=options.service_cidr,
        cluster_cidr=options.cluster_cidr,
    )
    try:
        asyncio.run(serve(settings))
    except KonvergeError as error:
        sys.stderr.write(json.dumps(error.triple()) + "\n")
        return 3 if isinstance(error, CheckRefused) else 1
    return 0


async def serve(settings: PlaneSettings) -> None:
    """Run the control plane until SIGTERM or SIGINT, or until one of its programs ends."""
    running = asyncio.current_task()
    assert running is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with RealControlPlane(settings) as plane:
            sys.stdout.write(json.dumps(describe(plane)) + "\n")
            sys.stdout.flush()
            await plane.watch()


def describe(plane: RealControlPlane) -> dict[str, object]:
    """Return the ready line."""
    programs = (plane.etcd, plane.api_server, plane.controllers)
    return {
        "server": plane.server,
        "kubeconfig": str(plane.kubeconfig),
        "directory": str(plane.directory),
        "pids": {program.name: program.pid for program in programs},
    }


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.realplane")
    parser.add_argument("--dir", type=Path, help="where it keeps its state (default: temporary)")
    parser.add_argument("--bind", default="127.0.0.1", help="address of the API server (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port of the API server (default: a free one)")
    parser.add_argument("--service-cidr", default="10.96.0.0/16", help="Service addresses (default %(default)s)")
    parser.add_argument("--cluster-cidr", default="10.244.0.0/16", help="Pod addresses (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
