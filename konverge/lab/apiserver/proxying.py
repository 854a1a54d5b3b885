"""Exec, attach, port-forward and logs: handed on to the kubelet of the pod's node, byte by byte.

The server knows nothing of WebSocket or SPDY: it sends the request head on, and once the kubelet has answered
101 it copies in both directions until either side closes.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from aiohttp import web
from typing_extensions import override

from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.statuses import StatusError, bad_request, internal, not_found
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State

CONNECT_SECONDS = 10.0
HEAD_SECONDS = 30.0
HEAD_LIMIT = 64 * 1024
KEPT = ("Upgrade", "Connection", "X-Stream-Protocol-Version", "Accept", "Accept-Encoding", "User-Agent", "Origin")
SUBPROTOCOL_PREFIX = "sec-websocket"
KUBELET_PORT = 10250
LOG_OPTIONS = ("follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes", "stream")


class Tunnel(asyncio.Protocol):
    """Takes over a client's connection after its request head."""

    def __init__(self, transport: asyncio.Transport, previous: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._previous = previous
        self._writer: asyncio.StreamWriter | None = None
        self._early: list[bytes] = []
        self._room = asyncio.Event()
        self._room.set()
        self.closed = asyncio.Event()

    def attach(self, writer: asyncio.StreamWriter) -> None:
        """Send what the client sent so far, and everything later, to the kubelet."""
        self._writer = writer
        for chunk in self._early:
            writer.write(chunk)
        self._early.clear()

    @override
    def data_received(self, data: bytes) -> None:
        if self._writer is None:
            self._early.append(data)
        elif not self._writer.is_closing():
            self._writer.write(data)

    @override
    def eof_received(self) -> bool:
        if self._writer is not None and not self._writer.is_closing() and self._writer.can_write_eof():
            self._writer.write_eof()
        return False

    @override
    def pause_writing(self) -> None:
        self._room.clear()

    @override
    def resume_writing(self) -> None:
        self._room.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._room.set()
        if self._writer is not None:
            self._writer.close()
        self._previous.connection_lost(exc)

    async def send(self, data: bytes) -> None:
        """Write to the client, waiting while it does not read."""
        await self._room.wait()
        if not self.closed.is_set():
            self._transport.write(data)


def find_container(pod: Object, name: str) -> str:
    """Return the container that is meant; 400 where the name is unknown or needed and missing."""
    spec = pod["spec"]
    names = [
        c["name"] for part in ("initContainers", "containers", "ephemeralContainers") for c in spec.get(part) or ()
    ]
    pod_name = pod["metadata"]["name"]
    if not name:
        main = [c["name"] for c in spec["containers"]]
        if len(main) == 1:
            return str(main[0])
        shown = " ".join(main)
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: [{shown}]")
    if name not in names:
        raise bad_request(f"container {name} is not valid for pod {pod_name}")
    return name


def find_kubelet(state: State, pod: Object) -> tuple[str, int]:
    """Return address and port of the kubelet of a pod's node."""
    name = pod["spec"].get("nodeName") or ""
    metadata = pod["metadata"]
    if not name:
        raise bad_request(f"pod {metadata['name']} does not have a host assigned")
    node = state.store.collection("nodes").get("", name)
    if node is None:
        kind = state.registry.find("", "v1", "nodes")
        assert kind is not None
        raise not_found(kind, name)
    status = node.object.get("status") or {}
    addresses = {a["type"]: a["address"] for a in status.get("addresses") or ()}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or KUBELET_PORT
    for wanted in ("InternalIP", "ExternalIP", "Hostname"):
        if addresses.get(wanted):
            return addresses[wanted], port
    raise internal(f"no preferred addresses found; known addresses: {list(addresses.values())}")


def _pod_of(state: State, request: Request) -> Object:
    entry = state.store.collection("pods").get(request.namespace, request.name)
    if entry is None:
        raise not_found(request.need_kind(), request.name)
    return entry.object


def build_target(request: Request, pod: Object) -> str:
    """Return the path and query on the kubelet."""
    space, name = quote(request.namespace), quote(request.name)
    query = request.query
    if request.subresource == "portforward":
        ports = [("port", port) for port in request.repeated.get("ports", ())]
        return f"/portForward/{space}/{name}" + (f"?{urlencode(ports)}" if ports else "")
    container = find_container(pod, query.get("container", ""))
    if request.subresource == "log":
        options = [(key, query[key]) for key in LOG_OPTIONS if key in query]
        return f"/containerLogs/{space}/{name}/{quote(container)}" + (f"?{urlencode(options)}" if options else "")
    options = [
        (target, "1")
        for source, target in (("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"))
        if request.flag(source)
    ]
    if not any(key != "tty" for key, _ in options):
        raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
    options += [("command", word) for word in request.repeated.get("command", ())]
    return f"/{request.subresource}/{space}/{name}/{quote(container)}?{urlencode(options)}"


async def proxy_stream(
    state: State, request: Request, raw: web.BaseRequest, context: ssl.SSLContext
) -> web.StreamResponse:
    """Serve exec, attach and port-forward."""
    pod = _pod_of(state, request)
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        raise bad_request(
            f"cannot exec into a container in a completed pod; current phase is {pod['status']['phase']}"
        )
    target = build_target(request, pod)
    host, port = find_kubelet(state, pod)
    if "upgrade" not in request.headers.get("Connection", "").lower():
        raise bad_request("Upgrade request required")
    reader, writer = await _connect(host, port, context)
    writer.write(_encode_head(request, target, host, port))
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as error:
        writer.close()
        raise internal(f"error dialing backend: {error or type(error).__name__}") from error
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise await _read_refusal(head, reader, writer)
    return await _tunnel(state, request, raw, head, reader, writer)


async def _connect(
    host: str, port: int, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(host, port, ssl=context, limit=HEAD_LIMIT, server_hostname=host)
    except (OSError, TimeoutError) as error:
        cause = (
            "connect: connection refused"
            if isinstance(error, ConnectionRefusedError)
            else str(error) or "i/o timeout"
        )
        raise StatusError(500, "", f"error dialing backend: dial tcp {host}:{port}: {cause}", {}) from error


def _encode_head(request: Request, target: str, host: str, port: int) -> bytes:
    lines = [f"{request.method} {target} HTTP/1.1", f"Host: {host}:{port}"]
    for name, value in _items(request.headers):
        if name in KEPT or name.title() in KEPT or name.lower().startswith(SUBPROTOCOL_PREFIX):
            if name.lower() == "sec-websocket-protocol" and "base64url.bearer" in value:
                kept = [part for part in value.split(",") if "base64url.bearer" not in part]
                lines.append(f"{name}: {','.join(kept).strip()}")
            else:
                lines.append(f"{name}: {value}")
    if request.method == "POST":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _items(headers: Any) -> list[tuple[str, str]]:
    return list(headers.items())


async def _read_refusal(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> StatusError:
    """Turn an answer that is no upgrade into the Status that the client gets."""
    code = int(head.split(b" ", 2)[1])
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    try:
        async with asyncio.timeout(HEAD_SECONDS):
            body = await reader.readexactly(min(length, HEAD_LIMIT)) if length else b""
    except (asyncio.IncompleteReadError, TimeoutError, OSError):
        body = b""
    writer.close()
    text = body.decode("utf-8", "replace").strip()
    reason = {400: "BadRequest", 403: "Forbidden", 404: "NotFound", 500: "InternalError"}.get(code, "")
    return StatusError(code, reason, text or f"unable to upgrade connection: {code}", {})


async def _tunnel(
    state: State,
    request: Request,
    raw: web.BaseRequest,
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> web.StreamResponse:
    transport = raw.transport
    if not isinstance(transport, asyncio.Transport):
        writer.close()
        raise internal("the client is gone")
    tunnel = Tunnel(transport, raw.protocol)
    transport.set_protocol(tunnel)
    tunnel.attach(writer)
    state.metrics.begin(request)
    try:
        await tunnel.send(head)
        while chunk := await reader.read(HEAD_LIMIT):
            await tunnel.send(chunk)
    except (OSError, ssl.SSLError):
        transport.abort()
    finally:
        state.metrics.end(request)
        writer.close()
        transport.close()
    await tunnel.closed.wait()
    return web.Response()


async def proxy_log(
    state: State, request: Request, raw: web.BaseRequest, context: ssl.SSLContext
) -> web.StreamResponse:
    """Serve logs: plain HTTP from the kubelet, passed on as it comes."""
    import aiohttp

    pod = _pod_of(state, request)
    target = build_target(request, pod)
    container = find_container(pod, request.query.get("container", ""))
    if not pod["spec"].get("nodeName"):
        return web.Response(status=204)
    host, port = find_kubelet(state, pod)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"https://{host}:{port}{target}", ssl=context) as answer,
        ):
            if answer.status != 200:
                text = (await answer.text()).strip()
                raise _explain_log(answer.status, text, container, request.name)
            return await _copy_log(state, request, raw, answer)
    except aiohttp.ClientConnectorError as error:
        why = f'Get "https://{host}:{port}{target}": dial tcp {host}:{port}: connect: connection refused'
        raise StatusError(500, "InternalError", why, {}) from error


def _explain_log(code: int, text: str, container: str, pod: str) -> StatusError:
    if code == 400 or code == 404:
        return StatusError(
            code,
            "BadRequest" if code == 400 else "NotFound",
            text or f'container "{container}" in pod "{pod}" is not available',
        )
    return internal(text or "the kubelet refused")


async def _copy_log(state: State, request: Request, raw: web.BaseRequest, answer: Any) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    state.metrics.begin(request)
    try:
        await response.prepare(raw)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    finally:
        state.metrics.end(request)
    return response
