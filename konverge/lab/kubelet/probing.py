"""Startup, readiness and liveness probes with the kubelet's timing and thresholds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from konverge.lab.kubelet.handlers import Target, act
from konverge.lab.kubelet.states import ContainerRecord, Tally

Object = dict[str, Any]
Report = Callable[[str, str], None]
"""Called with (kind of probe, message) on every failed attempt."""


class Prober:
    """Probes one run of a container: from its start until cancelled.

    Readiness and liveness begin when the startup probe has passed, and readiness at once then.
    ``unhealthy`` is called once when the liveness or startup probe has failed for good.
    """

    def __init__(
        self,
        container: Object,
        record: ContainerRecord,
        target: Target,
        *,
        changed: Callable[[], None],
        failed: Report,
        unhealthy: Callable[[str], None],
    ) -> None:
        self._container = container
        self._record = record
        self._target = target
        self._changed = changed
        self._failed = failed
        self._unhealthy = unhealthy
        self._started = asyncio.Event()
        self._liveness: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        """Probe until cancelled."""
        if self._record.started:
            self._started.set()
        async with asyncio.TaskGroup() as group:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                if self._container.get(kind):
                    task = group.create_task(self._repeat(kind, self._container[kind]))
                    if kind != "readinessProbe":
                        self._liveness.append(task)

    def stop_restarting(self) -> None:
        """End startup and liveness probes: the pod terminates, only readiness still matters."""
        for task in self._liveness:
            task.cancel()

    async def _repeat(self, kind: str, probe: Object) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if kind != "startupProbe":
            await self._started.wait()
        due = max(began + float(probe.get("initialDelaySeconds") or 0), loop.time())
        period = float(probe.get("periodSeconds") or 10)
        tally = Tally(int(probe.get("successThreshold") or 1), int(probe.get("failureThreshold") or 3))
        while True:
            await asyncio.sleep(due - loop.time())
            result, message = await act(probe, self._target, float(probe.get("timeoutSeconds") or 1))
            if not result:
                self._failed(kind, message)
            verdict = tally.count(result)
            if verdict is not None and self._apply(kind, verdict):
                return
            # A probe that takes longer than its period is followed at once, as with a ticker.
            due = max(due + period, loop.time())

    def _apply(self, kind: str, verdict: bool) -> bool:
        """Act on a result; return whether this probe has done its work."""
        record = self._record
        if kind == "readinessProbe":
            if record.probed_ready != verdict:
                record.probed_ready = verdict
                self._changed()
            return False
        if not verdict:
            self._unhealthy(kind.removesuffix("Probe"))
            return True
        if kind == "startupProbe":
            record.started = True
            self._started.set()
            self._changed()
            return True
        return False
