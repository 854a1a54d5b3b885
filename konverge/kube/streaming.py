"""Runs commands in pods and reaches their ports, over WebSockets through the API server.

Both speak the channel protocols of Kubernetes: every binary message starts with the number of its channel
(``k8s.io/apimachinery/pkg/util/remotecommand``, ``k8s.io/kubelet/pkg/cri/streaming/portforward``). Reading
such a stream is a GET, so the account needs ``get`` on the subresource, and ``create`` from 1.35 on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from konverge.errors import Conflict, Invalid, KonvergeError, RetryableError, Unavailable
from konverge.kube.client import KubeClient, map_status
from konverge.kube.resources import PODS

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
FORWARD_PROTOCOLS = ("v4.channel.k8s.io",)
STDOUT, STDERR, STATUS = 1, 2, 3
DATA, ERROR = 0, 1
EXEC_TIMEOUT = 60.0
"""Seconds for a command from connecting to its exit."""
OPEN_TIMEOUT = 10.0
"""Seconds until a stream is open: the API server dials the kubelet for it."""
LONGEST_OUTPUT = 1024 * 1024
"""Bytes of each output that are kept; the rest is read and dropped."""
PIECE = 32 * 1024
"""Bytes of one message; the kubelet uses the same."""
LONGEST_MESSAGE = 16 * 1024 * 1024
"""Bytes of one incoming message; the kubelet sends 32 KiB, a proxy between may join some."""
CLOSE_TIMEOUT = 1.0
"""Seconds that the other side has to answer a closing message."""
LINGER = 2.0
"""Seconds of silence after the local side has ended before a forwarded connection is closed: the protocol has
no half-close, and a client may still wait for an answer after it has shut down its sending side."""
HINT = "reference/errors.md#pod-streams"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command ended: exit code, both outputs, and whether more was written than was kept."""

    code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)
    truncated: bool = False


async def exec(  # noqa: A001 - the name that everybody knows it by; called as streaming.exec
    client: KubeClient,
    pod: str,
    namespace: str,
    container: str,
    command: Sequence[str],
    *,
    timeout: float = EXEC_TIMEOUT,
    limit: int = LONGEST_OUTPUT,
) -> ExecResult:
    """Run a command in a container and wait for its end; a code other than 0 is a result, not an error.

    Raises NotFound, Forbidden and the other errors of the client; Unavailable with reason ExecTimedOut after
    ``timeout`` seconds or ExecLost where the stream breaks off (the command may have run, or still run), and
    Invalid with reason ExecFailed where it could not be started.
    """
    query = [("container", container), ("stdout", "true"), ("stderr", "true")]
    query += [("command", word) for word in command]
    what = f"exec of {command[0]!r} in {namespace}/{pod}/{container}"
    collected = _Collected(limit)
    try:
        async with (
            asyncio.timeout(timeout),
            _open(client, namespace, pod, "exec", query, EXEC_PROTOCOLS, what) as socket,
        ):
            await collected.read(socket)
    except TimeoutError:
        raise _lost(f"{what}: no end within {timeout:g} s", "ExecTimedOut") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _lost(f"{what}: {error}", "ExecLost") from error
    return ExecResult(
        _read_code(bytes(collected.status), what),
        bytes(collected.stdout),
        bytes(collected.stderr),
        collected.truncated,
    )


class _Collected:
    """The outputs of a command as they come in, each up to a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.stdout, self.stderr, self.status = bytearray(), bytearray(), bytearray()
        self.truncated = False

    async def read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Read until the stream ends; the status comes last."""
        outputs = {STDOUT: self.stdout, STDERR: self.stderr, STATUS: self.status}
        async for message in socket:
            data = _payload(message)
            output = outputs.get(data[0]) if data else None
            if output is None:
                continue
            room = self.limit - len(output)
            self.truncated = self.truncated or len(data) - 1 > room
            output += data[1 : 1 + max(room, 0)]


def _read_code(status: bytes, what: str) -> int:
    """Read the exit code out of the ``metav1.Status`` on the status channel."""
    try:
        document = orjson.loads(status)
    except orjson.JSONDecodeError:
        raise _lost(f"{what}: the stream ended without a status", "ExecLost") from None
    if document.get("status") == "Success":
        return 0
    causes = (document.get("details") or {}).get("causes") or ()
    for cause in causes:
        if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).lstrip("-").isdigit():
            return int(cause["message"])
    raise Invalid(f"{what}: {document.get('message', 'failed')}", reason="ExecFailed", hint=HINT)


class PortForward:
    """Forwards a local port on 127.0.0.1 to a port inside a pod while the context is open.

    Every local connection gets a WebSocket of its own, so a broken one harms no other. Inside the pod the
    connection comes from its loopback: that is how an Admin API is reached that listens there only. Anybody
    on this host can use the local port while it is open. ``error`` is the last failure of a connection.

    Entering raises the client's errors where the pod cannot be reached at all (NotFound, Forbidden and so on).
    """

    def __init__(self, client: KubeClient, pod: str, namespace: str, port: int, *, linger: float = LINGER) -> None:
        self._client = client
        self._pod = pod
        self._namespace = namespace
        self._port = port
        self._linger = linger
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.error: KonvergeError | None = None

    @property
    def port(self) -> int:
        """The local port."""
        if self._server is None:
            raise RuntimeError("the port-forward is not open")
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``; with TLS inside, use the port and a server name."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self._client.get(PODS, self._pod, self._namespace)
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop listening and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        what = f"port-forward to {self._namespace}/{self._pod}:{self._port}"
        query = [("ports", str(self._port))]
        try:
            async with _open(
                self._client, self._namespace, self._pod, "portforward", query, FORWARD_PROTOCOLS, what
            ) as socket:
                await self._pump(socket, reader, writer, what)
        except KonvergeError as error:
            self.error = error
        except (aiohttp.ClientError, OSError) as error:
            self.error = _lost(f"{what}: {error}", "PortForwardLost")
        finally:
            writer.transport.abort()

    async def _pump(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        what: str,
    ) -> None:
        """Carry both directions until the pod's side ends, or is silent after the local side has ended."""
        silence = _Silence()
        down = asyncio.create_task(_receive(socket, writer, silence, what))
        up = asyncio.create_task(_send(socket, reader))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if not down.done() and up.exception() is None:
                await silence.wait(down, self._linger)
            for task in (down, up):
                if task.done():
                    task.result()
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)


class _Silence:
    """Tells how long ago something was heard."""

    def __init__(self) -> None:
        self._last = asyncio.get_running_loop().time()

    def hear(self) -> None:
        self._last = asyncio.get_running_loop().time()

    async def wait(self, task: asyncio.Task[None], seconds: float) -> None:
        """Return when the task has ended or nothing was heard for some seconds."""
        loop = asyncio.get_running_loop()
        self.hear()
        while not task.done() and (rest := self._last + seconds - loop.time()) > 0:
            await asyncio.wait({task}, timeout=rest)


async def _send(socket: aiohttp.ClientWebSocketResponse, reader: asyncio.StreamReader) -> None:
    prefix = bytes([DATA])
    while piece := await reader.read(PIECE):
        await socket.send_bytes(prefix + piece)


async def _receive(
    socket: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter, silence: _Silence, what: str
) -> None:
    """Write what comes from the pod; the first message of each channel repeats the port as two bytes."""
    opened: set[int] = set()
    async for message in socket:
        data = _payload(message)
        silence.hear()
        channel = data[0] if data else DATA
        if channel not in opened:
            opened.add(channel)
        elif channel == ERROR:
            words = data[1:].decode("utf-8", "replace").strip()
            raise _lost(f"{what}: {words}", "PortForwardRefused")
        elif channel == DATA:
            writer.write(data[1:])
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def _open(
    client: KubeClient,
    namespace: str,
    pod: str,
    subresource: str,
    query: Sequence[tuple[str, str]],
    protocols: Sequence[str],
    what: str,
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a WebSocket to a subresource of a pod; refusals become the errors of the client."""
    url = client.server + PODS.path(namespace, pod, subresource)
    client.requests += 1
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            socket = await client.session().ws_connect(
                url,
                params=list(query),
                headers=await client.headers(),
                protocols=protocols,
                autoping=True,
                max_msg_size=LONGEST_MESSAGE,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
            )
    except aiohttp.WSServerHandshakeError as error:
        raise _map_refusal(error, what) from None
    except TimeoutError:
        raise _lost(f"{what}: the stream did not open within {OPEN_TIMEOUT:g} s", "StreamTimedOut") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _lost(f"{what}: {error}", "ApiUnreachable") from error
    try:
        yield socket
    finally:
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            await socket.close()


def _map_refusal(error: aiohttp.WSServerHandshakeError, what: str) -> KonvergeError:
    """Name the object: the body of a refused upgrade is lost, only its status is known."""
    if error.status == 404:
        return map_status(404, b'{"message":"the pod does not exist"}', what)
    if error.status == 400:
        return Conflict(
            f"{what}: the container does not run, or the pod has no such container or port",
            reason="ContainerNotRunning",
            hint=HINT,
        )
    return map_status(error.status if error.status >= 300 else 500, b"", what)


def _payload(message: aiohttp.WSMessage) -> bytes:
    data: Any = message.data
    return data if isinstance(data, bytes) else str(data).encode() if isinstance(data, str) else b""


def _lost(message: str, reason: str) -> RetryableError:
    return Unavailable(message, reason=reason, hint=HINT)
