"""Answers of the Admin API: status, headers in Kong's order, JSON body."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import orjson

from konverge.lab.kong.schema.registry import VERSION
from konverge.lab.kong.wire.exchange import Reply
from konverge.lab.kong.wire.message import HeaderItems, print_date
from konverge.lab.kong.wire.pages import HTML, error_page

JSON = "application/json; charset=utf-8"
SERVER = f"kong/{VERSION}"


@dataclass(slots=True)
class Answer:
    """What a handler of the Admin API returns."""

    status: int
    body: Any = None
    """JSON value, bytes as they are, or None for an empty body."""
    content_type: str = JSON
    headers: HeaderItems = field(default_factory=list)
    cors: bool = True
    chunked: bool = False
    """Without Content-Length."""


def ok(body: Any) -> Answer:
    """Return 200 with JSON."""
    return Answer(200, body)


def say(status: int, message: str) -> Answer:
    """Return a status with a message."""
    return Answer(status, {"message": message})


def not_found() -> Answer:
    """Return 404."""
    return say(404, "Not found")


def not_allowed() -> Answer:
    """Return 405."""
    return say(405, "Method not allowed")


def page(status: int, *, cors: bool = True) -> Answer:
    """Return one of nginx's own pages."""
    return Answer(status, error_page(status), HTML, cors=cors)


def coded(status: int, code: int, name: str, message: str, fields: Any = None) -> Answer:
    """Return one of Kong's coded errors (``kong/db/errors.lua``)."""
    body: dict[str, Any] = {"code": code, "name": name}
    if fields is not None:
        body["fields"] = fields
    return Answer(status, body | {"message": message})


def encode(answer: Answer) -> bytes:
    """Return the bytes of a body."""
    if answer.body is None:
        return b""
    if isinstance(answer.body, bytes):
        return answer.body
    return orjson.dumps(answer.body, default=str)


async def send_answer(
    reply: Reply, answer: Answer, started: float, *, credentials: bool, offset: float = 0.0, cut: int = -1
) -> None:
    """Send an answer; ``credentials`` for the Admin API, which adds one more CORS field than the Status API.

    With ``cut`` the connection is dropped after that many bytes of the body.
    """
    body = encode(answer)
    fields: HeaderItems = [("Date", print_date(offset))]
    empty = answer.status == 204
    if body and not empty:
        fields.append(("Content-Type", answer.content_type))
    if answer.status == 304:
        fields.append(("Content-Length", "0"))
    fields.append(("Connection", ""))
    if answer.cors:
        fields.append(("Access-Control-Allow-Origin", "*"))
        if credentials:
            fields.append(("Access-Control-Allow-Credentials", "true"))
    fields += answer.headers
    if not empty and answer.status != 304 and not answer.chunked:
        fields.append(("Content-Length", str(len(body))))
    fields.append(("X-Kong-Admin-Latency", str(int((time.monotonic() - started) * 1000))))
    fields.append(("Server", SERVER))
    await reply.start(answer.status, fields)
    if 0 <= cut < len(body):
        await reply.write(body[:cut])
        reply.abort()
        return
    await reply.write(body)
    await reply.end()
