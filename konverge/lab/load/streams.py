"""Streams that are held open for the time that the client's schedule gives them.

A stream that lasts as long as it was asked to is a success, and so is one that the client itself leaves. One
that the server ends early is ``closed_gracefully`` where its body is complete, and failed otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from konverge.lab.load.connections import dial
from konverge.lab.load.outcomes import Ending, ExchangeFailed, Kind, Outcome
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass
from konverge.lab.load.recording import Recorder
from konverge.lab.load.requests import build_head, check_response, find_endpoint, frame_plain

SILENCE = 5.0
"""Seconds without a due line or echo, beyond the interval, after which a session counts as dead."""


@dataclass(slots=True)
class LineReader:
    """Checks the numbered lines of a stream as they arrive; ``problem`` names the first fault."""

    arrived: Callable[[], None]
    count: int = 0
    ended: bool = False
    problem: str = ""
    _rest: bytearray = field(default_factory=bytearray)

    def take(self, data: bytes) -> None:
        """Take a part of the body."""
        self._rest += data
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        for line in lines:
            self._read(line)
        self.arrived()

    def _read(self, line: bytes) -> None:
        try:
            document = orjson.loads(line)
            number, end = document["seq"], bool(document.get("end"))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            self.problem = self.problem or f"line {self.count} is no numbered line"
            return
        if number != self.count and not self.problem:
            self.problem = f"line {number} came instead of line {self.count}"
        self.count += 1
        self.ended = end


async def hold_stream(
    plan: LoadPlan, item: TrafficClass, target: Target, outcome: Outcome, recorder: Recorder, seconds: float
) -> None:
    """Read one stream to its end; fills the outcome, raises ExchangeFailed where it breaks.

    The server is asked for exactly ``seconds``: the client's schedule is in the request. ``target.path`` gets
    ``seconds`` and ``interval`` as query parameters.
    """
    loop = asyncio.get_running_loop()
    mark = "&" if "?" in target.path else "?"
    path = f"{target.path}{mark}seconds={seconds:.3f}&interval={item.interval:g}"
    target = target.model_copy(update={"path": path})
    connection = await dial(find_endpoint(plan, target), plan.connect_timeout)
    silence = item.interval + SILENCE

    def note_arrival() -> None:
        outcome.latency = outcome.latency or loop.time() - outcome.intended
        watchdog.reschedule(loop.time() + silence)

    reader = LineReader(note_arrival)
    recorder.lines.sessions += 1
    try:
        async with asyncio.timeout(plan.timeout) as watchdog:
            response = await connection.exchange(
                target.method, frame_plain(build_head(plan, target, close=True), target.method), reader.take
            )
    except TimeoutError as error:
        raise ExchangeFailed(
            Kind.TIMEOUT, f"The stream stood still after {reader.count} lines", answered=reader.count > 0
        ) from error
    except ExchangeFailed as failure:
        raise _as_cut(failure, reader) from failure
    finally:
        recorder.lines.received += reader.count
        connection.close()
    outcome.latency = outcome.latency or loop.time() - outcome.intended
    check_response(target, response)
    if reader.problem:
        raise ExchangeFailed(Kind.WRONG_BODY, f"In the stream {reader.problem}", answered=True)
    if not reader.ended:
        outcome.ending = Ending.CLOSED_GRACEFULLY
        outcome.detail = f"complete after {reader.count} lines, before its time"


def _as_cut(failure: ExchangeFailed, reader: LineReader) -> ExchangeFailed:
    """A connection that dies within a stream is a cut, however it died."""
    if not failure.answered or failure.kind == Kind.MALFORMED_RESPONSE:
        return failure
    return ExchangeFailed(Kind.STREAM_CUT, f"After {reader.count} lines: {failure.message}", answered=True)
