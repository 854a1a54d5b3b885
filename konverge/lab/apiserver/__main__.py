"""``python -m konverge.lab.apiserver --listen HOST:PORT --dir DIR``: the server as a process.

Prints one line of JSON when it is ready (url, kubeconfig, pid), ends cleanly on SIGTERM, dies with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from ipaddress import IPv4Network
from pathlib import Path

import orjson

from konverge.lab.apiserver import ApiServer, Settings
from konverge.lab.apiserver.state import LOOPBACK
from konverge.lab.ending import catch_signals
from konverge.lab.pod import die_with_parent


def parse_arguments(arguments: list[str]) -> Settings:
    """Return the settings that the command line names."""
    parser = argparse.ArgumentParser(prog="konverge.lab.apiserver", description="A stand-in Kubernetes API server.")
    parser.add_argument("--listen", default="127.0.0.1:6443", help="HOST:PORT, port 0 picks a free one")
    parser.add_argument("--dir", type=Path, required=True, help="certificates, kubeconfig and the store")
    parser.add_argument("--service-cidr", type=IPv4Network, default=IPv4Network("10.96.0.0/16"))
    parser.add_argument("--rbac", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--allow-loopback-endpoints", action="store_true")
    parser.add_argument("--loopback-range", type=IPv4Network, default=LOOPBACK, help="what that switch opens")
    parser.add_argument("--tokens", type=Path, help="CSV: token,user,uid,groups")
    parser.add_argument("--audit-log", type=Path, help="a line of JSON per request")
    parser.add_argument("--persist", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--history", type=int, default=4096, help="events kept per resource")
    parser.add_argument("--bookmark-period", type=float, default=10.0, help="seconds")
    parser.add_argument("--advertise", action="append", default=[], help="more names for the certificate")
    given = parser.parse_args(arguments)
    return Settings(
        directory=given.dir,
        listen=given.listen,
        service_cidr=given.service_cidr,
        rbac=given.rbac,
        allow_loopback_endpoints=given.allow_loopback_endpoints,
        loopback_range=given.loopback_range,
        tokens_file=given.tokens,
        audit_file=given.audit_log,
        history=given.history,
        bookmark_period=given.bookmark_period,
        persist=given.persist,
        advertise=tuple(given.advertise),
    )


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = catch_signals()
    async with ApiServer(settings) as server:
        gc.freeze()
        ready = {"ready": True, "url": server.url, "kubeconfig": str(server.kubeconfig), "pid": os.getpid()}
        sys.stdout.write(orjson.dumps(ready).decode() + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Read the command line and serve."""
    die_with_parent()
    settings = parse_arguments(sys.argv[1:])
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        sys.exit(f"The API server cannot run on {settings.listen} in {settings.directory}: {error}")


if __name__ == "__main__":
    main()
