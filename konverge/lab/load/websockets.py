"""WebSockets that are held open: a numbered message every interval, each of which must come back.

A close of 1000 or 1001 by the server is graceful; any other end, or an echo that stays away, breaks the session.
Messages that were sent and not echoed when the server ended the session are lost, however it ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from dataclasses import dataclass, field

import aiohttp

from konverge.lab.load.outcomes import Ending, ExchangeFailed, Kind, Outcome, bad_status
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass
from konverge.lab.load.recording import Recorder
from konverge.lab.load.requests import all_headers, find_endpoint
from konverge.lab.load.streams import SILENCE

GRACEFUL = frozenset({1000, 1001})
"""Close codes "normal" and "going away" (RFC 6455, 7.4.1)."""
CLOSING = frozenset(
    {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}
)
CLOSE_TIMEOUT = 2.0
"""Seconds for the peer's half of the closing handshake."""


@dataclass(slots=True)
class Dialogue:
    """The messages of one session; ``pending`` holds number and moment of those not echoed yet."""

    recorder: Recorder
    prefix: str
    number: int = 0
    pending: deque[tuple[str, float]] = field(default_factory=deque)

    def next_message(self, now: float) -> str:
        """Return the next message and expect its echo."""
        text = f"{self.prefix}-{self.number}"
        self.number += 1
        self.pending.append((text, now))
        return text

    def take(self, text: str, now: float) -> None:
        """Count an echo; ExchangeFailed where it is not the one that is due."""
        if not self.pending or text != self.pending[0][0]:
            due = self.pending[0][0] if self.pending else "nothing"
            raise ExchangeFailed(Kind.WRONG_BODY, f"The WebSocket echoed {text[:60]!r} where {due!r} was due")
        _, sent = self.pending.popleft()
        self.recorder.messages.sent += 1
        self.recorder.messages.echoed += 1
        self.recorder.round_trips.add(now - sent)

    def give_up(self) -> None:
        """Count what was not echoed as lost."""
        self.recorder.messages.sent += len(self.pending)
        self.recorder.messages.lost += len(self.pending)
        self.pending.clear()


async def hold_websocket(
    client: aiohttp.ClientSession,
    plan: LoadPlan,
    item: TrafficClass,
    target: Target,
    outcome: Outcome,
    recorder: Recorder,
    seconds: float,
) -> None:
    """Hold one session for ``seconds``; fills the outcome, raises ExchangeFailed where it breaks."""
    loop = asyncio.get_running_loop()
    socket = await _open(client, plan, target)
    outcome.latency = loop.time() - outcome.intended
    recorder.messages.sessions += 1
    dialogue = Dialogue(recorder, f"{item.name}-{recorder.messages.sessions}")
    try:
        code = await _converse(socket, dialogue, item.interval, loop.time() + seconds)
        if code is not None:
            dialogue.give_up()
            outcome.ending = Ending.CLOSED_GRACEFULLY
            outcome.detail = f"closed by the server with {code} after {dialogue.number} messages"
    except ExchangeFailed:
        dialogue.give_up()
        recorder.messages.sessions_broken += 1
        raise
    finally:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await socket.close()


async def _converse(
    socket: aiohttp.ClientWebSocketResponse, dialogue: Dialogue, interval: float, ends: float
) -> int | None:
    """Talk until ``ends`` and until every message has come back; returns the code of a graceful early close."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        now = loop.time()
        if now >= ends and not dialogue.pending:
            return None
        if due <= now < ends:
            # Where the connection is gone already, receiving tells why.
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await socket.send_str(dialogue.next_message(now))
            due += interval
        wake = due if now < ends else now + interval
        try:
            message = await socket.receive(timeout=max(0.001, wake - loop.time()))
        except TimeoutError:
            _check_silence(dialogue, loop.time(), interval)
            continue
        if message.type in CLOSING:
            return _judge_close(message)
        if message.type is aiohttp.WSMsgType.TEXT:
            dialogue.take(message.data, loop.time())


def _check_silence(dialogue: Dialogue, now: float, interval: float) -> None:
    if dialogue.pending and now - dialogue.pending[0][1] > interval + SILENCE:
        waited = now - dialogue.pending[0][1]
        raise ExchangeFailed(
            Kind.WEBSOCKET_CLOSED, f"No echo of {dialogue.pending[0][0]!r} within {waited:.1f} s", answered=True
        )


def _judge_close(message: aiohttp.WSMessage) -> int:
    # The type decides: aiohttp reports close code 1000 too where the connection ended without a close frame.
    if message.type is aiohttp.WSMsgType.CLOSE and message.data in GRACEFUL:
        return int(message.data)
    how = f"close code {message.data}" if message.type is aiohttp.WSMsgType.CLOSE else "no close frame"
    raise ExchangeFailed(Kind.WEBSOCKET_CLOSED, f"The WebSocket ended with {how}", answered=True)


async def _open(client: aiohttp.ClientSession, plan: LoadPlan, target: Target) -> aiohttp.ClientWebSocketResponse:
    endpoint = find_endpoint(plan, target)
    try:
        async with asyncio.timeout(plan.timeout):
            return await client.ws_connect(
                plan.base_url + target.path,
                headers=all_headers(plan, target),
                ssl=endpoint.tls if endpoint.tls is not None else True,
                server_hostname=endpoint.server_name or None,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                max_msg_size=1 << 20,
            )
    except TimeoutError as error:
        raise ExchangeFailed(Kind.TIMEOUT, f"No WebSocket handshake within {plan.timeout:g} s") from error
    except aiohttp.WSServerHandshakeError as error:
        raise ExchangeFailed(bad_status(error.status), f"The handshake got status {error.status}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise _as_failure(error) from error


def _as_failure(error: Exception) -> ExchangeFailed:
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return ExchangeFailed(Kind.CONNECT_REFUSED, f"The WebSocket's connection was refused: {error}")
    if isinstance(error, aiohttp.ClientSSLError):
        return ExchangeFailed(Kind.TLS_FAILED, f"The WebSocket's TLS handshake failed: {error}")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ExchangeFailed(Kind.CONNECT_FAILED, f"The WebSocket's connection failed: {error}")
    if number in (errno.ECONNRESET, errno.EPIPE):
        return ExchangeFailed(Kind.RESET, f"The connection was reset in the WebSocket handshake: {error}")
    return ExchangeFailed(
        Kind.EOF_BEFORE_RESPONSE, f"The connection ended in the WebSocket handshake: {error or type(error).__name__}"
    )
