"""The control endpoint: faults and state of a running stand-in, on an address of its own.

``GET /faults``, ``PUT /faults`` with a JSON object of changes, ``POST /orphan-lock`` (a worker was killed while it
loaded: 429 for the TTL of the lock), ``GET /state``. It has no counterpart in Kong.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson

from konverge.lab.kong.admin.answers import Answer, not_allowed, not_found, ok, say, send_answer
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.wire.connections import Connections, ServerContext, Stats
from konverge.lab.kong.wire.exchange import Reply, Request
from konverge.lab.kong.wire.listener import Binding, Entrance

LIMIT = 1 << 20


class Control:
    """The control endpoint of one node; ``address`` is HOST:PORT or the path of a unix socket."""

    def __init__(self, node: StandInKong, address: str) -> None:
        self._node = node
        host, _, port = address.rpartition(":")
        self._socket = Path(address) if "/" in address else None
        context = ServerContext(self._serve, Connections(Stats()))
        self.binding = Binding(host, int(port) if self._socket is None else 0, context, None)
        self._server: Any = None

    async def open(self) -> None:
        """Listen. Raises OSError."""
        if self._socket is None:
            await self.binding.open()
            return
        import asyncio

        self._socket.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: Entrance(self.binding), str(self._socket))

    async def close(self) -> None:
        """Stop listening and drop the connections."""
        self.binding.close()
        self.binding.context.connections.abort()
        if self._server is not None:
            self._server.close()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    async def _serve(self, request: Request, reply: Reply) -> None:
        answer = await self._answer(request)
        await send_answer(reply, answer, time.monotonic(), credentials=False)

    async def _answer(self, request: Request) -> Answer:
        node, path = self._node, request.target.partition("?")[0]
        if path == "/faults":
            if request.method == "GET":
                return ok(node.faults.as_dict())
            if request.method not in ("PUT", "PATCH", "POST"):
                return not_allowed()
            try:
                node.faults.update(orjson.loads(await request.body.read_all(LIMIT)))
            except (ValueError, TypeError, AttributeError) as error:
                return say(400, str(error))
            return ok(node.faults.as_dict())
        if path == "/orphan-lock" and request.method == "POST":
            node.lock.orphan()
            return Answer(204)
        if path == "/state" and request.method == "GET":
            return ok(
                {
                    "node_id": node.node_id,
                    "hash": node.snapshot.hash,
                    "routed_hash": node.gateway.router.snapshot.hash,
                    "draining": node.draining,
                    "exiting": node.exiting,
                    "connections": node.stats.active,
                }
            )
        return not_found()
