"""The handlers of the echo application.

Every answer names the pod, so that a client can tell which replica served it. Streams number their lines and
end with a marker, so that a cut is told from an end; a stream that is ended by the pod's own shutdown is
complete HTTP without the marker.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import time
from typing import Any
from weakref import WeakSet

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from konverge.lab.pod import PodEnvironment

LONGEST = 3600.0
"""Seconds: the longest delay or stream that is accepted."""
SHORTEST_INTERVAL = 0.001
"""Seconds: the shortest pause between two lines of a stream."""
SERVED_BY = "X-Echo-Pod"


class Echo:
    """The application's state: who it is, how many requests it has seen, and whether it is leaving."""

    def __init__(self, pod: PodEnvironment) -> None:
        self._pod = pod
        self.leaving = asyncio.Event()
        self.requests = 0
        self._sockets: WeakSet[web.WebSocketResponse] = WeakSet()

    def application(self) -> web.Application:
        """Build the aiohttp application with all routes."""
        app = web.Application(middlewares=[self._sign])
        app.router.add_get("/healthz", self.report_health)
        app.router.add_get("/stream", self.stream)
        app.router.add_get("/ws", self.echo_messages)
        app.router.add_route("*", "/status/{code:[1-5][0-9][0-9]}", self.answer_status)
        app.router.add_route("*", "/delay", self.answer_late)
        app.router.add_route("*", "/{path:.*}", self.echo)
        app.on_shutdown.append(self._close_sockets)
        return app

    def begin_leaving(self) -> None:
        """End streams and WebSockets at the next line; new requests are still answered."""
        self.leaving.set()

    @web.middleware
    async def _sign(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests += 1
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers[SERVED_BY] = self._pod.name
        return response

    async def report_health(self, _: web.Request) -> web.Response:
        """Say 200 while serving and 503 once the pod has been asked to go."""
        if self.leaving.is_set():
            return web.json_response({"status": "leaving"}, status=503)
        return web.json_response({"status": "ok", "requests": self.requests})

    async def echo(self, request: web.Request) -> web.Response:
        """Describe the request as JSON; the body is digested while it arrives and not kept."""
        digest, length = hashlib.sha256(), 0
        async for chunk in request.content.iter_chunked(65536):
            digest.update(chunk)
            length += len(chunk)
        return web.Response(
            body=orjson.dumps(self._describe(request, digest.hexdigest(), length)),
            content_type="application/json",
        )

    def _describe(self, request: web.Request, digest: str, length: int) -> dict[str, Any]:
        return {
            "pod": self._pod.name,
            "namespace": self._pod.namespace,
            "ip": self._pod.ip,
            "method": request.method,
            "path": request.path,
            "query": request.query_string,
            "host": request.host,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body_sha256": digest,
            "body_length": length,
        }

    async def answer_status(self, request: web.Request) -> web.Response:
        """Answer with the status that the path names; 1xx is answered as 400."""
        code = int(request.match_info["code"])
        if code < 200:
            raise web.HTTPBadRequest(text="an informational status is no answer")
        return web.Response(status=code, text="" if code in (204, 304) else f"status {code}\n")

    async def answer_late(self, request: web.Request) -> web.Response:
        """Answer after ``s`` seconds, whatever the pod's shutdown does meanwhile."""
        await asyncio.sleep(_number(request, "s", 1.0, 0.0))
        return await self.echo(request)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send a numbered JSON line every ``interval`` seconds for ``seconds``, then one with ``"end": true``."""
        seconds = _number(request, "seconds", 10.0, 0.0)
        interval = _number(request, "interval", 0.2, SHORTEST_INTERVAL)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", SERVED_BY: self._pod.name})
        response.enable_chunked_encoding()
        await response.prepare(request)
        # A client that leaves is no fault of the application.
        with contextlib.suppress(ConnectionError):
            await self._send_lines(response, seconds, interval)
            await response.write_eof()
        return response

    async def _send_lines(self, response: web.StreamResponse, seconds: float, interval: float) -> None:
        started, lines = time.monotonic(), math.ceil(seconds / interval)
        for number in range(lines):
            await response.write(_line(seq=number, pod=self._pod.name))
            if await self._left_before(started + min((number + 1) * interval, seconds)):
                return
        await response.write(_line(seq=lines, end=True))

    async def _left_before(self, moment: float) -> bool:
        """Wait until ``moment`` (monotonic seconds); True at once where the pod starts to leave."""
        try:
            async with asyncio.timeout(max(0.0, moment - time.monotonic())):
                await self.leaving.wait()
        except TimeoutError:
            return False
        return True

    async def echo_messages(self, request: web.Request) -> web.WebSocketResponse:
        """Send every message back until the client closes, or with close code 1001 until the pod leaves."""
        socket = web.WebSocketResponse(timeout=5.0, max_msg_size=1 << 24)
        await socket.prepare(request)
        self._sockets.add(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def _close_sockets(self, _: web.Application) -> None:
        self.leaving.set()
        closing = (socket.close(code=WSCloseCode.GOING_AWAY, message=b"leaving") for socket in set(self._sockets))
        await asyncio.gather(*closing, return_exceptions=True)


def _number(request: web.Request, name: str, default: float, least: float) -> float:
    try:
        value = float(request.query.get(name, default))
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"{name} is not a number of seconds") from error
    if not least <= value <= LONGEST:
        raise web.HTTPBadRequest(text=f"{name} is not between {least} and {LONGEST}")
    return value


def _line(**fields: Any) -> bytes:
    return orjson.dumps(fields) + b"\n"
