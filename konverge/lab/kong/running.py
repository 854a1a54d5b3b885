"""Running one stand-in as a process: signals, control endpoint, end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping

import orjson

from konverge.lab.kong.control import Control
from konverge.lab.kong.faults import Faults
from konverge.lab.kong.listen import BadListen
from konverge.lab.kong.node import CannotStart, StandInKong
from konverge.lab.kong.settings import BadSetting, Settings
from konverge.lab.kong.wire.broken import BrokenFiles
from konverge.lab.pod import PodEnvironment, die_with_parent

CONTROL = "KONVERGE_LAB_KONG_CONTROL"
FAULTS = "KONVERGE_LAB_KONG_FAULTS"
PARENT_IS_OPTIONAL = "KONVERGE_LAB_KONG_DAEMON"
"""Set by ``kong start``: the node outlives the command that started it."""


async def run_node(settings: Settings, *, control: str = "", faults: Faults | None = None) -> int:
    """Serve until a signal ends it; return the exit code."""
    node = StandInKong(settings, faults=faults)
    try:
        await node.start()
    except (CannotStart, BrokenFiles, OSError) as error:
        sys.stderr.write(f"Error: {error}\n\n  Run with --v (verbose) or --vv (debug) for more details\n")
        return 1
    endpoint = Control(node, control) if control else None
    if endpoint is not None:
        await endpoint.open()
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Task[None]] = []
    loop.add_signal_handler(signal.SIGTERM, lambda: ending.append(loop.create_task(node.stop())))
    loop.add_signal_handler(signal.SIGINT, lambda: ending.append(loop.create_task(node.stop())))
    loop.add_signal_handler(signal.SIGQUIT, lambda: ending.append(loop.create_task(node.quit())))
    loop.add_signal_handler(signal.SIGHUP, node.hang_up)
    await node.finished.wait()
    if endpoint is not None:
        await endpoint.close()
    await asyncio.gather(*ending, return_exceptions=True)
    return 0


def run_from_environment(environ: Mapping[str, str] | None = None) -> int:
    """Run as a container: settings from KONG_*; return the exit code."""
    env = os.environ if environ is None else environ
    if not env.get(PARENT_IS_OPTIONAL):
        die_with_parent()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    try:
        settings = Settings.from_env(env, PodEnvironment.read(env))
        faults = Faults()
        if env.get(FAULTS):
            faults.update(orjson.loads(env[FAULTS]))
    except (BadSetting, BadListen, ValueError) as error:
        sys.stderr.write(f"Error: {error}\n")
        return 1
    return asyncio.run(run_node(settings, control=env.get(CONTROL, ""), faults=faults))
