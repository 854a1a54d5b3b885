"""The process ``python -m konverge.lab.kubelet``: runs pods until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path

from konverge.errors import KonvergeError, UsageError
from konverge.lab.ending import catch_signals
from konverge.lab.kubelet.agent import Kubelet
from konverge.lab.kubelet.settings import DELAYS, Delays, KubeletSettings
from konverge.lab.pod import die_with_parent

DEFAULTS = KubeletSettings(Path(), Path())


def parse_arguments(arguments: list[str]) -> KubeletSettings:
    """Read the command line; exits with 2 and a usage line where it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--dir", type=Path, required=True, help="state: pods, logs, process ids, certificate")
    parser.add_argument("--address", default=DEFAULTS.address, help="where the kubelet listens; the nodes' address")
    parser.add_argument("--port", type=int, default=DEFAULTS.port)
    parser.add_argument("--nodes", default=",".join(DEFAULTS.nodes), help="names of the nodes, comma separated")
    parser.add_argument("--pod-cidr", default=DEFAULTS.pod_cidr)
    parser.add_argument("--loopback-cidr", default="", help="of the pod loopbacks; default 127.N.128.0/18")
    parser.add_argument("--ca-cert", type=Path, help="authority of clients and of the serving certificate")
    parser.add_argument("--ca-key", type=Path)
    parser.add_argument("--scheduler", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--zygote", action=argparse.BooleanOptionalAction, default=True, help="fork containers")
    parser.add_argument(
        "--delays", default=os.environ.get(DELAYS, ""), help="start=S,terminate=S,project=S,backoff=S"
    )
    options = parser.parse_args(arguments)
    if (options.ca_cert is None) != (options.ca_key is None):
        raise UsageError("--ca-cert and --ca-key are needed together.")
    return KubeletSettings(
        kubeconfig=options.kubeconfig,
        directory=options.dir.resolve(),
        address=options.address,
        port=options.port,
        nodes=tuple(name.strip() for name in options.nodes.split(",") if name.strip()),
        pod_cidr=options.pod_cidr,
        loopback_cidr=options.loopback_cidr,
        ca_certificate=options.ca_cert,
        ca_key=options.ca_key,
        schedule=options.scheduler,
        zygote=options.zygote,
        delays=Delays.parse(options.delays),
    )


async def run(settings: KubeletSettings) -> None:
    """Run a kubelet until a signal; prints one JSON line when it is ready."""
    stop = catch_signals()
    async with Kubelet(settings) as kubelet:
        ready = {"ready": True, "address": settings.address, "port": kubelet.port, "nodes": settings.nodes}
        print(json.dumps(ready), flush=True)  # noqa: T201 - the ready line is this program's interface
        await stop.wait()


def main() -> int:
    """Return 0 after a signal, 1 or 2 with one line on stderr after an error."""
    die_with_parent()
    logging.basicConfig(level=os.environ.get("KONVERGE_LAB_LOG", "INFO"), stream=sys.stderr)
    try:
        asyncio.run(run(parse_arguments(sys.argv[1:])))
    except KonvergeError as error:
        sys.stderr.write(f"{error.reason}: {error.message} (see docs/{error.hint})\n")
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        sys.stderr.write(f"KubeletFailed: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
