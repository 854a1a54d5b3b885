"""Dispatching the requests of the Admin API and of the Status API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from konverge.lab.kong.admin import configuring, entities, info, status
from konverge.lab.kong.admin.answers import Answer, not_allowed, not_found, ok, page, say, send_answer
from konverge.lab.kong.admin.parameters import BadJson, CrashingJson, parse_body, parse_pairs
from konverge.lab.kong.database.answering import WRITING, answer_write
from konverge.lab.kong.wire.exchange import Reply, Request
from konverge.lab.kong.wire.message import BadMessage, split_target
from konverge.lab.kong.wire.stream import StreamClosed

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

log = logging.getLogger(__name__)

METRICS_TYPE = "text/plain; charset=UTF-8"
Reader = Callable[["StandInKong", dict[str, Any]], Answer | Awaitable[Answer]]

READERS: dict[str, Reader] = {
    "/": lambda node, _query: info.read_root(node),
    "/status": status.read_status,
    "/endpoints": lambda node, _query: info.read_endpoints(node),
    "/plugins/enabled": lambda node, _query: info.read_plugins(node),
    "/metrics": lambda node, _query: read_metrics(node),
    "/timers": lambda node, _query: ok({"worker": {"id": 0, "count": node.settings.workers}, "stats": {}}),
    "/tags": lambda node, _query: entities.list_tags(node, None),
    "/clustering/status": lambda _node, _query: not_found(),
    "/cache": lambda _node, _query: not_allowed(),
}
"""What can only be read."""


def read_metrics(node: StandInKong) -> Answer:
    """Answer GET /metrics."""
    return Answer(200, node.render_metrics().encode(), METRICS_TYPE, chunked=True)


async def serve_admin(node: StandInKong, request: Request, reply: Reply) -> None:
    """Answer one request on the Admin API."""
    faults = node.faults
    if faults.hang_on == "admin" and faults.take("hang"):
        await asyncio.get_running_loop().create_future()
    if faults.delay_on == "admin" and faults.delay:
        await asyncio.sleep(faults.delay)
    answer = await _answer_safely(node, request, reply)
    cut = faults.truncate_after if request.method == "POST" else -1
    await send_answer(reply, answer, request.started, credentials=True, offset=faults.clock_offset, cut=cut)


async def _answer_safely(node: StandInKong, request: Request, reply: Reply) -> Answer:
    """Answer; what fails unexpectedly is a 500, as Lapis makes it one."""
    try:
        return await _answer_admin(node, request, reply)
    except (StreamClosed, BadMessage, ConnectionError, TimeoutError):
        raise
    except Exception:
        log.exception("request failed: %s %s", request.method, request.target)
        return say(500, configuring.UNEXPECTED)


async def _answer_admin(node: StandInKong, request: Request, reply: Reply) -> Answer:
    path, query_text = split_target(request.target)
    query = parse_pairs(query_text)
    path = path.rstrip("/") or "/"
    if path == "/config":
        return await _answer_config(node, request, query, reply)
    length = request.body.length
    if length is not None and node.settings.client_max_body and length > node.settings.client_max_body:
        reply.close_after()
        return page(413, cors=False)
    if path in READERS:
        return await _read(node, request, READERS[path], query)
    if node.follower is not None:
        await node.follower.refresh()
    parts = [unquote(part) for part in path.split("/")[1:]]
    if parts[0] == "schemas":
        return await _answer_schemas(node, request, parts[1:])
    if parts[0] == "tags" and len(parts) == 2:
        return entities.list_tags(node, parts[1])
    if parts[0] == "upstreams" and len(parts) >= 3 and parts[2] == "health":
        return node.health_answer(parts[1], query) if request.method in ("GET", "HEAD") else not_allowed()
    if parts[0] == "upstreams" and len(parts) == 4 and parts[2:] == ["targets", "all"]:
        parts = parts[:3]
    place = entities.locate(node, parts)
    if place is None:
        return not_found()
    if isinstance(place, Answer):
        return place
    if node.follower is not None and request.method in WRITING:
        return await answer_write(node, node.follower, place, request, query)
    return entities.answer_place(node, place, request.method, query)


async def _answer_config(node: StandInKong, request: Request, query: dict[str, Any], reply: Reply) -> Answer:
    if request.method == "POST":
        return await configuring.post_config(node, request, query, reply)
    if request.method in ("GET", "HEAD"):
        return await configuring.get_config(node)
    if request.method == "OPTIONS":
        return entities.options(entities.COLLECTION)
    return not_allowed()


async def _read(node: StandInKong, request: Request, reader: Reader, query: dict[str, Any]) -> Answer:
    if request.method == "OPTIONS":
        return entities.options("GET, HEAD, OPTIONS")
    if request.method not in ("GET", "HEAD"):
        return not_allowed()
    answer = reader(node, query)
    return answer if isinstance(answer, Answer) else await answer


async def _answer_schemas(node: StandInKong, request: Request, parts: list[str]) -> Answer:
    if request.method == "POST" and len(parts) == 2 and parts[1] == "validate":
        try:
            body = parse_body(request.headers.get("content-type"), await request.body.read_all(10 << 20))
        except BadJson:
            return say(400, "Cannot parse JSON body")
        except CrashingJson:
            return say(500, configuring.UNEXPECTED)
        return info.validate(node, parts[0], body)
    if request.method not in ("GET", "HEAD"):
        return not_allowed()
    if len(parts) == 1:
        return info.read_schema(node, parts[0])
    if len(parts) == 2 and parts[0] == "plugins":
        return info.read_plugin_schema(node, parts[1])
    return not_found()


async def serve_status(node: StandInKong, request: Request, reply: Reply) -> None:
    """Answer one request on the Status API."""
    faults = node.faults
    if faults.hang_on == "status" and faults.take("hang"):
        await asyncio.get_running_loop().create_future()
    if faults.delay_on == "status" and faults.delay:
        await asyncio.sleep(faults.delay)
    answer = await _answer_status(node, request)
    await send_answer(reply, answer, request.started, credentials=False, offset=faults.clock_offset)


async def _answer_status(node: StandInKong, request: Request) -> Answer:
    path, query_text = split_target(request.target)
    path = path.rstrip("/") or "/"
    if path == "/status/ready":
        if request.method == "POST":
            return await status.write_ready(node, request)
        return status.read_ready(node) if request.method in ("GET", "HEAD") else not_allowed()
    if path not in ("/status", "/metrics"):
        return not_found()
    return await _read(node, request, READERS[path], parse_pairs(query_text))
