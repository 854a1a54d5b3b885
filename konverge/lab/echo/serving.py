"""Listening and leaving: the echo application stays until SIGTERM and then finishes what it has begun.

On SIGTERM the listeners close, idle connections go, streams end at their next line, WebSockets get close code
1001, and requests in flight have ``grace`` seconds to finish.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from konverge.lab.echo.app import Echo
from konverge.lab.pod import PodEnvironment

log = logging.getLogger("konverge.lab.echo")

DEFAULT_PORT = 8080
DEFAULT_GRACE = 20.0
"""Seconds for requests in flight; below Kubernetes' default of 30 for the whole pod."""
KEEP_ALIVE = 75.0
"""Seconds that an idle connection is kept: nginx's default, so that a proxy's pool sees the usual server."""


@dataclass(frozen=True, slots=True)
class EchoSettings:
    """Where to listen, and how many seconds requests in flight may take once the pod leaves."""

    port: int = DEFAULT_PORT
    grace: float = DEFAULT_GRACE

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> EchoSettings:
        """Read PORT and ECHO_GRACE_SECONDS."""
        return cls(
            port=int(environ.get("PORT") or DEFAULT_PORT),
            grace=float(environ.get("ECHO_GRACE_SECONDS") or DEFAULT_GRACE),
        )


async def listen(echo: Echo, settings: EchoSettings, pod: PodEnvironment) -> tuple[web.AppRunner, list[int]]:
    """Bind every address of the pod; returns the runner to clean up and the ports in the order of the addresses."""
    runner = web.AppRunner(
        echo.application(), access_log=None, shutdown_timeout=settings.grace, keepalive_timeout=KEEP_ALIVE
    )
    await runner.setup()
    try:
        for host in pod.resolve_hosts("0.0.0.0"):  # noqa: S104 - resolved to the pod's own addresses in the lab
            await web.TCPSite(runner, host, settings.port, backlog=1024).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, [int(address[1]) for address in runner.addresses]


async def serve(
    echo: Echo,
    settings: EchoSettings,
    pod: PodEnvironment,
    *,
    stop: asyncio.Event | None = None,
    announce: Callable[[list[int]], None] | None = None,
) -> None:
    """Serve until ``stop``, SIGTERM or SIGINT, then leave; raises OSError where a port cannot be bound."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner, ports = await listen(echo, settings, pod)
    log.info("echo %s listens on port %s", pod.name or "-", ports[0])
    if announce:
        announce(ports)
    try:
        await stop.wait()
        log.info("echo %s leaves", pod.name or "-")
        echo.begin_leaving()
    finally:
        await runner.cleanup()
