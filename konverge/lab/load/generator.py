"""An open-loop load generator: requests start when the schedule says, whatever became of those before.

A stall therefore shows as the latency of every request that was due meanwhile, counted from its intended start
("coordinated omission" cannot happen), and a stall of the generator itself shows as schedule lag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Self

import aiohttp

from konverge.errors import UsageError
from konverge.lab.load.outcomes import Ending, ExchangeFailed, Kind, Outcome, as_failure
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass
from konverge.lab.load.recording import Recorder
from konverge.lab.load.report import Connections, Counts, LoadReport, Snapshot
from konverge.lab.load.requests import find_endpoint, spread
from konverge.lab.load.senders import Sender
from konverge.lab.load.streams import hold_stream
from konverge.lab.load.websockets import hold_websocket
from konverge.lab.pod import raise_file_limit

RECONNECT_PAUSE = 0.2
"""Seconds between a session that did not last and the next one of its place."""
SLICE = 256
"""Requests started in one turn of the loop at most, so that a catch-up leaves room for answers."""


class LoadGenerator:
    """Runs a plan from ``async with`` on until :meth:`stop`; use one instance once."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[asyncio.Task[None]] = set()
        self._senders: dict[str, Sender] = {}
        self._client: aiohttp.ClientSession | None = None
        self._pacer: asyncio.Task[None] | None = None
        self._recorder: Recorder | None = None
        self._report: LoadReport | None = None
        self._stopping = False
        self._started = 0
        self._sessions_open = 0
        self._last_snapshot = (0.0, 0)
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin the schedule now; UsageError where the plan's ca_file is not usable."""
        raise_file_limit()
        for target in (target for item in self._plan.classes for target in item.targets):
            find_endpoint(self._plan, target)
        requests = [item for item in self._plan.classes if not item.holds_sessions]
        self._senders = {item.name: Sender(self._plan, item) for item in requests}
        self._client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        # The clock starts last: nothing that is prepared above counts as lag.
        self._recorder = Recorder(self._plan)
        if self._plan.rate and requests:
            self._pacer = asyncio.create_task(self._pace(requests), name="load pacer")
        for item in self._plan.classes:
            if item.holds_sessions:
                self._start_sessions(item)

    def mark(self, phase: str) -> None:
        """Begin a phase: requests that are to start from now on belong to it."""
        self._seen().mark(phase, asyncio.get_running_loop().time())

    def snapshot(self) -> Snapshot:
        """Return the counts so far; cheap enough for several calls a second."""
        recorder = self._seen()
        totals = recorder.totals()
        seconds = asyncio.get_running_loop().time() - recorder.begins
        finished = totals.endings.total()
        before, counted = self._last_snapshot
        self._last_snapshot = seconds, finished
        return Snapshot(
            phase=recorder.phase,
            seconds=round(seconds, 3),
            in_flight=len(self._tasks),
            sessions_open=self._sessions_open,
            rate=round((finished - counted) / max(1e-6, seconds - before), 1),
            requests=Counts(**totals.counts()),
            p99_ms=round(totals.latency.percentile_ms(0.99), 3),
            max_lag_ms=round(recorder.lag.max_ms(), 3),
        )

    async def wait_until(self, reached: Callable[[Snapshot], bool], timeout: float) -> Snapshot:
        """Return the first snapshot that ``reached`` accepts; TimeoutError after ``timeout`` seconds."""
        async with asyncio.timeout(timeout):
            while not reached(snapshot := self.snapshot()):
                self._changed.clear()
                await self._changed.wait()
            return snapshot

    async def stop(self) -> LoadReport:
        """End the schedule, wait for requests under way, end the sessions and return the report.

        Safe to call twice: the second call returns the same report.
        """
        if self._report is not None:
            return self._report
        recorder = self._seen()
        self._stopping = True
        elapsed = asyncio.get_running_loop().time() - recorder.begins
        await _cancel([self._pacer] if self._pacer else [])
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._plan.timeout + 1)
        await _cancel(self._sessions)
        await _cancel(self._tasks)
        connections = self._close_pools()
        if self._client is not None:
            await self._client.close()
        # One turn, so that the closed transports are told and leave no warning behind.
        await asyncio.sleep(0)
        self._report = recorder.report(self._started, elapsed, connections)
        return self._report

    def _seen(self) -> Recorder:
        if self._recorder is None:
            raise UsageError("The load generator has not been started", hint="reference/load.md#python")
        return self._recorder

    def _close_pools(self) -> Connections:
        total = Connections()
        for sender in self._senders.values():
            for pool in sender.pools:
                total.opened += pool.opened
                total.discarded_when_stale += pool.discarded
                pool.close()
        return total

    async def _pace(self, classes: list[TrafficClass]) -> None:
        """Start request i at ``begins + i / rate``; what is late is started at once and keeps its intended start."""
        loop = asyncio.get_running_loop()
        recorder = self._seen()
        turns = spread([item.share for item in classes])
        while True:
            now = loop.time()
            due = int((now - recorder.begins) * self._plan.rate) + 1
            for _ in range(min(SLICE, due - self._started)):
                intended = recorder.begins + self._started / self._plan.rate
                self._started += 1
                recorder.lag.add(loop.time() - intended)
                self._launch(classes[next(turns)], intended)
            following = recorder.begins + self._started / self._plan.rate
            await asyncio.sleep(max(0.0, following - loop.time()))

    def _launch(self, item: TrafficClass, intended: float) -> None:
        sender = self._senders[item.name]
        shot = sender.next_shot()
        outcome = Outcome(item.name, shot.target.name, intended)
        if len(self._tasks) >= self._plan.max_in_flight:
            failure = ExchangeFailed(
                Kind.CLIENT_OVERLOADED, f"{len(self._tasks)} requests were under way already", written=False
            )
            self._settle(outcome, failure)
            return
        self._spawn(self._tasks, self._finish(outcome, sender.send(shot, outcome)))

    async def _finish(self, outcome: Outcome, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self._settle(outcome, as_failure(error))
        else:
            outcome.latency = asyncio.get_running_loop().time() - outcome.intended
            self._settle(outcome)

    def _settle(self, outcome: Outcome, failure: ExchangeFailed | None = None) -> None:
        outcome.finished = asyncio.get_running_loop().time()
        if failure is not None:
            outcome.ending, outcome.kind, outcome.detail = Ending.FAILED, failure.kind, failure.message
        self._seen().add(outcome)
        self._changed.set()

    def _spawn(self, group: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        group.add(task)
        self._changed.set()
        task.add_done_callback(group.discard)

    def _start_sessions(self, item: TrafficClass) -> None:
        turns = spread([target.weight for target in item.targets])
        for place in range(item.sessions):
            # The first sessions are of different lengths, so that later ones do not all end at once.
            first = item.seconds * (place + 1) / item.sessions
            self._spawn(self._sessions, self._keep_session(item, turns, first))

    async def _keep_session(self, item: TrafficClass, turns: Iterator[int], seconds: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            target = item.targets[next(turns)]
            outcome = Outcome(item.name, target.name, loop.time())
            try:
                await self._hold(item, target, outcome, seconds)
                self._settle(outcome)
            except Exception as error:
                self._settle(outcome, as_failure(error))
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                # The client leaves: its own schedule has ended. What never opened is no session.
                if outcome.latency:
                    self._settle(outcome)
                return
            if outcome.ending is not Ending.OK:
                await asyncio.sleep(RECONNECT_PAUSE)
            seconds = item.seconds

    async def _hold(self, item: TrafficClass, target: Target, outcome: Outcome, seconds: float) -> None:
        recorder = self._seen()
        self._sessions_open += 1
        self._changed.set()
        try:
            if item.kind == "stream":
                await hold_stream(self._plan, item, target, outcome, recorder, seconds)
            else:
                assert self._client is not None
                await hold_websocket(self._client, self._plan, item, target, outcome, recorder, seconds)
        except ExchangeFailed as failure:
            if item.kind == "stream" and failure.kind == Kind.STREAM_CUT:
                recorder.lines.sessions_cut += 1
            raise
        finally:
            self._sessions_open -= 1


async def _cancel(tasks: set[asyncio.Task[None]] | list[asyncio.Task[None]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
