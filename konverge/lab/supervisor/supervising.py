"""Starts the components in order, restarts those that end by themselves, ends all of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable

from konverge.errors import KonvergeError
from konverge.lab.supervisor import watchdog
from konverge.lab.supervisor.children import Child
from konverge.lab.supervisor.components import Blueprint

log = logging.getLogger(__name__)

Report = Callable[[str, str], None]
"""Called with what is being done and how it stands: "starting", "ready", "restarting" ..."""

RESTART_SECONDS = (0.2, 5.0)
"""The first and the longest pause before a component is started again."""
WATCHDOG_SECONDS = 5.0


class Supervisor:
    """The components of one lab."""

    def __init__(self, blueprint: Blueprint, report: Report, *, restart: bool, timeout: float) -> None:
        self.blueprint = blueprint
        self.children: dict[str, Child] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called when a component has come up or gone down."""
        self.restart = restart
        self._report = report
        self._timeout = timeout
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._watchdog: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start everything; returns when every component is ready, raises Unavailable when one is not."""
        await self._start_watchdog()
        await self._bring_up(self.blueprint.control_plane())
        async with asyncio.TaskGroup() as group:
            for child in self.blueprint.followers():
                group.create_task(self._bring_up(child))

    async def stop(self) -> None:
        """End everything in the opposite order; what does not end is swept up."""
        for task in self._watchers.values():
            task.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        # The kubelet ends the pods first, while there is still somebody to tell.
        names = [name for name in self.children if name != "apiserver"]
        await asyncio.gather(*(self.children[name].stop() for name in names))
        if "apiserver" in self.children:
            await self.children["apiserver"].stop()
        await self._stop_watchdog()

    async def start_again(self, name: str) -> None:
        """Start a component that ended, and wait until it is ready."""
        child = self.children[name]
        child.restarts += 1
        await child.start()
        self._watchers[name] = asyncio.create_task(self._watch(child))
        await child.wait_ready(self._timeout)
        self.changed()

    async def _bring_up(self, child: Child) -> None:
        self._report(child.name, "starting")
        self.children[child.name] = child
        await child.start()
        await child.wait_ready(self._timeout)
        self._report(child.name, "ready")
        self._watchers[child.name] = asyncio.create_task(self._watch(child))
        self.changed()

    async def _watch(self, child: Child) -> None:
        pause = RESTART_SECONDS[0]
        while True:
            code = await child.wait()
            child.ready.clear()
            self.changed()
            log.warning("%s ended with code %d", child.name, code)
            if not self.restart:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, RESTART_SECONDS[1])
            child.restarts += 1
            self._report(child.name, "restarting")
            try:
                await child.start()
                await child.wait_ready(self._timeout)
            except (KonvergeError, OSError) as error:
                log.warning("%s: %s", child.name, error)
                continue
            pause = RESTART_SECONDS[0]
            self._report(child.name, "ready")
            self.changed()

    async def _start_watchdog(self) -> None:
        # -S and -E: it must start fast and must not depend on anything that can be broken.
        self._watchdog = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            "-E",
            watchdog.__file__,
            self.blueprint.marker,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=self.blueprint.environment(),
            start_new_session=True,
        )

    async def _stop_watchdog(self) -> None:
        if self._watchdog is None or self._watchdog.stdin is None:
            return
        self._watchdog.stdin.close()
        try:
            async with asyncio.timeout(WATCHDOG_SECONDS):
                await self._watchdog.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._watchdog.kill()
            await self._watchdog.wait()
