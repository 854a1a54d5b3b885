"""Serves the page: the assets, ``/api/fleet`` as JSON with an ETag, ``/events`` as a stream. Only GET, no state."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator
from importlib import resources

from aiohttp import web

from konverge.controller.page.board import Board, Change, Reader
from konverge.controller.page.snapshot import SnapshotSource

ASSETS = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Nothing from elsewhere, nothing inline, no frames; a copy is used only after it was compared (ETag)."""
REFRESH_SECONDS = 0.5
"""While somebody looks, the controller's memory is compared this often; it costs no request to anybody."""
HEARTBEAT_SECONDS = 15.0
"""A comment on a quiet stream: proxies in between close what is silent for a minute."""
SEND_SECONDS = 10.0
"""A reader that takes no bytes for this long is dropped."""
MOST_READERS = 64
"""Streams at once; one more is refused with 503 and comes back by itself."""

log = logging.getLogger(__name__)

BOARD = web.AppKey("board", Board)


def add_page(app: web.Application, source: SnapshotSource) -> Board:
    """Add the page's routes to an application; its stream ends when the application shuts down."""
    board = Board(source)
    app[BOARD] = board
    for path, (name, content_type) in ASSETS.items():
        app.router.add_get(path, _Asset(name, content_type).answer)
    app.router.add_get("/api/fleet", answer_fleet)
    app.router.add_get("/events", answer_events)
    app.cleanup_ctx.append(_refresh_while_running)
    app.on_shutdown.append(_close)
    return board


class _Asset:
    """One file of the package, read once."""

    def __init__(self, name: str, content_type: str) -> None:
        self._content = (resources.files("konverge.controller.page") / "assets" / name).read_bytes()
        self._type = content_type
        self._tag = hashlib.sha256(self._content).hexdigest()[:32]

    async def answer(self, request: web.Request) -> web.Response:
        return _answer(request, self._content, self._type, self._tag)


def _answer(request: web.Request, content: bytes, content_type: str, tag: str) -> web.Response:
    known = {entry.value for entry in request.if_none_match or ()}
    response = web.Response(status=304, headers=HEADERS)
    if tag not in known:
        response = web.Response(body=content, content_type=content_type, charset="utf-8", headers=HEADERS)
        response.enable_compression()
    response.etag = tag
    return response


async def answer_fleet(request: web.Request) -> web.Response:
    """Return fleet and proxies as JSON; 304 where the reader has them."""
    board = request.app[BOARD]
    board.refresh()
    return _answer(request, board.document(), "application/json", board.version)


async def answer_events(request: web.Request) -> web.StreamResponse:
    """Stream what changes, from ``Last-Event-ID`` on; 503 where too many look at once."""
    board = request.app[BOARD]
    if len(board.readers) >= MOST_READERS:
        return web.Response(status=503, text="too many readers\n", headers={**HEADERS, "Retry-After": "10"})
    board.refresh()
    headers = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    with board.read() as reader:
        await response.prepare(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for change in board.catch_up(request.headers.get("Last-Event-ID", "")):
                await _send(response, _encode(board, change))
            async for text in _follow(board, reader):
                await _send(response, text)
    return response


async def _follow(board: Board, reader: Reader) -> AsyncIterator[bytes]:
    """Yield changes as they come, and a comment where none came for a while; ends when the reader is dropped."""
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                change = await reader.queue.get()
        except TimeoutError:
            yield b":\n\n"
            continue
        if change is None:
            return
        yield _encode(board, change)


def _encode(board: Board, change: Change) -> bytes:
    head = f"id: {board.epoch}-{change.number}\nevent: {change.event}\nretry: 2000\ndata: "
    return head.encode() + change.data + b"\n\n"


async def _send(response: web.StreamResponse, text: bytes) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await response.write(text)


async def _refresh_while_running(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(_refresh_forever(app[BOARD]))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _refresh_forever(board: Board) -> None:
    while True:
        if board.readers:
            try:
                board.refresh()
            except Exception:  # the page is the last thing that may end a controller
                log.exception("the page cannot be refreshed")
        await asyncio.sleep(REFRESH_SECONDS)


async def _close(app: web.Application) -> None:
    app[BOARD].close()
