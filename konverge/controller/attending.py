"""Looks after one flow run: whether it starts, whether its process lives, and when nothing more will come of it.

A worker that was killed leaves its run RUNNING for ever. Prefect's automation of ``konverge server bootstrap`` ends
such a run; where that does not exist, this does. Ending a run whose process lives after all does no harm: a sync
holds the Lease of its fleet, and the next one waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from konverge.controller.delegating import Delegate, Run
from konverge.errors import Invalid, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import LEASES
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet

START_VARIABLE, SILENT_VARIABLE = "KONVERGE_RUN_START_SECONDS", "KONVERGE_RUN_SILENT_SECONDS"
WAITING = frozenset({"SCHEDULED", "PENDING", "PAUSED"})
LOOKS = 8
"""How often a running run is listened to within the time after which its silence counts."""
HINT = "reference/errors.md"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a run may take to start, and how long a running one may be silent, in seconds."""

    start: float = 60.0
    silent: float = 120.0
    """Four heartbeats of a flow, as bootstrap and chart set them; a sync renews its Lease every two seconds too."""

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Patience:
        """Return what the environment says; Invalid names the variable that is no number of seconds."""
        return cls(
            _read_seconds(environment, START_VARIABLE, cls().start),
            _read_seconds(environment, SILENT_VARIABLE, cls().silent),
        )


def _read_seconds(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e9:
        raise Invalid(
            f"{name} is {text!r}; write a number of seconds above 0",
            reason="PrefectSettings",
            hint="reference/controller.md#environment-of-the-prefect-runner",
        )
    return seconds


class Attendant:
    """One run and what is known of it. Times are of the monotonic clock: no clock of another machine is trusted."""

    def __init__(self, kube: KubeClient, delegate: Delegate, fleet: Fleet, run: Run, patience: Patience) -> None:
        self._kube = kube
        self._delegate = delegate
        self._fleet = fleet
        self._patience = patience
        self.run = run
        self._since = self._heard = time.monotonic()
        self._listen_at = self._since + patience.silent / LOOKS
        self._signs: tuple[str, ...] = ()

    async def look(self) -> Outcome | None:
        """Look at the run once; returns what keeps it from its end, None where nothing does."""
        before = self.run.state
        try:
            self.run = await self._delegate.look(self.run)
            now = time.monotonic()
            if self.run.state != before:
                self._since = self._heard = now
            if self.run.ended:
                return None
            if self.run.state in WAITING:
                return await self._judge_start(now - self._since)
            return await self._judge_life(now)
        except KonvergeError:
            # While Prefect does not answer nobody is heard.
            self._heard = time.monotonic()
            raise

    async def _judge_start(self, waited: float) -> Outcome | None:
        run, patience = self.run, self._patience
        if waited <= patience.start:
            return None
        if run.state == "PENDING" and waited > patience.start + patience.silent:
            return await self._end(f"was taken by a worker, but did not start within {waited:.0f} s")
        state = run.name or run.state
        return Outcome(
            reason="RunNotStarted",
            message=f"Run {run.id} of {run.flow} is {state}, and was not started within {patience.start:.0f} s:"
            " nothing is pushed until a worker of its work pool does it",
            hint=f"{HINT}#run-not-started",
        )

    async def _judge_life(self, now: float) -> Outcome | None:
        if now >= self._listen_at:
            self._listen_at = now + self._patience.silent / LOOKS
            signs = await self._listen()
            if signs != self._signs:
                self._signs, self._heard = signs, now
        silent = now - self._heard
        return await self._end(f"gave no sign of life for {silent:.0f} s") if silent > self._patience.silent else None

    async def _listen(self) -> tuple[str, ...]:
        """Return what changes while the run's process lives: its newest event, and the Leases of its sync."""
        fleet = self._fleet
        event = await self._delegate.find_event(self.run)
        names = (f"{fleet.name}-sync", f"{fleet.name}-sync-next")
        leases = [await self._kube.find(LEASES, name, fleet.namespace) for name in names]
        return (event, *(str(lease["metadata"].get("resourceVersion")) if lease else "" for lease in leases))

    async def _end(self, what: str) -> Outcome:
        text = f"Run {self.run.id} of {self.run.flow} {what}: its process is gone; it is ended, another one goes on"
        await self._delegate.end(self.run, text)
        return Outcome(reason="RunLost", message=text, hint=f"{HINT}#run-lost")
