"""The kubelet's HTTPS API: health, pods, logs, exec, attach and port-forward."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from konverge.errors import KonvergeError, NotFound
from konverge.lab.kubelet.containers import Container
from konverge.lab.kubelet.lifecycle import PodWorker
from konverge.lab.kubelet.logs import LogFile, LogQuery, read_log
from konverge.lab.kubelet.processes import stat_fields
from konverge.lab.kubelet.recording import timestamp
from konverge.lab.kubelet.streaming.attaching import attach
from konverge.lab.kubelet.streaming.executing import execute
from konverge.lab.kubelet.streaming.pipes import ExecPipes
from konverge.lab.kubelet.streaming.requests import exec_options, serve_exec, serve_forward

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHUTDOWN = 0.5
"""Seconds that open requests get when the kubelet ends."""
PAGE_SIZE, TICKS = 4096, 100
"""``getconf PAGESIZE`` and ``CLK_TCK`` of Linux on the machines we know."""


class KubeletServer:
    """Serves one kubelet; ``workers`` are its pods by uid."""

    def __init__(self, workers: dict[str, PodWorker], address: str, nodes: tuple[str, ...]) -> None:
        self._workers = workers
        self._address = address
        self._nodes = nodes
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, port: int, context: ssl.SSLContext) -> None:
        """Listen; OSError where the port is taken."""
        application = web.Application(middlewares=[_answer_errors])
        application.router.add_get("/healthz", self._health)
        application.router.add_get("/pods", self._pods)
        application.router.add_get("/stats/summary", self._stats)
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for path in ("{namespace}/{pod}", "{namespace}/{pod}/{uid}"):
            for method in ("GET", "POST"):
                application.router.add_route(method, f"/exec/{path}/{{container}}", self._exec)
                application.router.add_route(method, f"/attach/{path}/{{container}}", self._attach)
                application.router.add_route(method, f"/portForward/{path}", self._forward)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._address, port, ssl_context=context, backlog=1024)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _worker(self, request: web.Request) -> PodWorker:
        namespace, name = request.match_info["namespace"], request.match_info["pod"]
        for worker in self._workers.values():
            metadata = worker.sandbox.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return worker
        raise NotFound(f"pod {namespace}/{name} is not on this node", reason="NoSuchPod")

    def _container(self, request: web.Request) -> Container:
        return self._worker(request).find(request.match_info["container"])

    async def _health(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _pods(self, _request: web.Request) -> web.StreamResponse:
        pods = [worker.sandbox.pod for worker in self._workers.values()]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods})

    async def _stats(self, _request: web.Request) -> web.StreamResponse:
        pods = [_pod_stats(worker) for worker in self._workers.values()]
        return _json({"node": {"nodeName": self._nodes[0], "startTime": timestamp()}, "pods": pods})

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        options, container = exec_options(request.query), self._container(request)
        if not options.command:
            raise web.HTTPBadRequest(text="you must specify at least 1 command\n")

        async def run(pipes: ExecPipes) -> None:
            await execute(container, options, pipes)

        return await serve_exec(request, options, run)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        options, container = exec_options(request.query), self._container(request)

        async def run(pipes: ExecPipes) -> None:
            await attach(container, pipes)

        return await serve_exec(request, options, run)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        address = worker.sandbox.address
        return await serve_forward(request, (address.loopback, address.ip), worker.sandbox.uid)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        try:
            query = LogQuery.parse(dict(request.query), datetime.now(UTC))
        except ValueError as error:
            raise web.HTTPUnprocessableEntity(text=f"{error}\n") from error
        path, live = _log_of(container, previous=request.query.get("previous") in ("true", "1"))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        async with contextlib.aclosing(read_log(path, query, live)) as blocks:
            async for block in blocks:
                await response.write(block)
        await response.write_eof()
        return response


def _log_of(container: Container, *, previous: bool) -> tuple[Path, LogFile | None]:
    where = f'container "{container.name}" in pod "{container.sandbox.pod["metadata"]["name"]}"'
    path = container.log_path(previous=previous)
    if path is None and previous:
        raise web.HTTPBadRequest(text=f"previous terminated {where} not found\n")
    if path is None:
        reason = container.record.reason or "ContainerCreating"
        raise web.HTTPBadRequest(text=f"{where} is waiting to start: {reason}\n")
    return path, container.log if container.log is not None and container.log.path == path else None


def _pod_stats(worker: PodWorker) -> dict[str, Any]:
    metadata = worker.sandbox.pod["metadata"]
    reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
    running = [item for item in worker.containers if item.process is not None]
    return {"podRef": reference, "containers": [_container_stats(item) for item in running]}


def _container_stats(container: Container) -> dict[str, Any]:
    assert container.process is not None
    fields = stat_fields(container.process.pid)
    seconds = (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0
    resident = int(fields[21]) * PAGE_SIZE if fields else 0
    return {
        "name": container.name,
        "startTime": container.record.started_at,
        "cpu": {"time": timestamp(), "usageCoreNanoSeconds": int(seconds * 1e9)},
        "memory": {"time": timestamp(), "rssBytes": resident, "workingSetBytes": resident},
    }


def _json(document: Any) -> web.Response:
    return web.Response(body=orjson.dumps(document), content_type="application/json")


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except NotFound as error:
        return web.Response(status=404, text=error.message + "\n")
    except KonvergeError as error:
        return web.Response(status=500, text=error.message + "\n")
    except (TimeoutError, ConnectionError) as error:
        # The client has left; there is nobody to answer.
        raise web.HTTPInternalServerError(text=f"{error}\n") from error
