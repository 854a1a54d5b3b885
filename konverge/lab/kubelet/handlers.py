"""Actions on a container that probes and lifecycle hooks share: exec, httpGet, tcpSocket, sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from konverge.errors import Invalid, KonvergeError

Object = dict[str, Any]
BODY_LIMIT = 10 * 1024
REDIRECTS = 10
USER_AGENT = "kube-probe/1.36"
RunCommand = Callable[[tuple[str, ...], float | None], Awaitable[tuple[int, bytes]]]


@dataclass(frozen=True, slots=True)
class Target:
    """Where actions on a container go."""

    host: str
    """The pod IP: the kubelet calls from outside the pod."""
    ports: dict[str, int]
    http: aiohttp.ClientSession
    run: RunCommand

    def port(self, value: int | str) -> int:
        """Return the number of a port that may be given by name; Invalid where no port has that name."""
        if isinstance(value, int) or value.isdigit():
            return int(value)
        if value not in self.ports:
            raise Invalid(f"The container has no port named {value!r}.", reason="NoSuchPort")
        return self.ports[value]


async def act(action: Object, target: Target, timeout: float | None) -> tuple[bool, str]:
    """Do what a probe or hook says; return whether it succeeded, and what to tell if not."""
    try:
        async with asyncio.timeout(timeout):
            if action.get("exec"):
                return await _execute(action["exec"], target)
            if action.get("httpGet"):
                return await _get(action["httpGet"], target)
            if action.get("tcpSocket"):
                return await _connect(action["tcpSocket"], target)
            if action.get("sleep"):
                await asyncio.sleep(float(action["sleep"]["seconds"]))
                return True, ""
    except TimeoutError:
        if action.get("exec"):
            return False, f"command timed out: {_shown(action['exec'])} timed out after {timeout:g}s"
        return False, f"context deadline exceeded after {timeout:g}s"
    except (aiohttp.ClientError, OSError, KonvergeError) as error:
        return False, _cause(error)
    return False, f"the lab knows no action {sorted(action)}: exec, httpGet, tcpSocket and sleep are supported"


def _cause(error: Exception) -> str:
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, ConnectionRefusedError):
        return "connect: connection refused"
    return str(error) or type(error).__name__


def _shown(action: Object) -> str:
    return '"' + " ".join(action.get("command") or ()) + '"'


async def _execute(action: Object, target: Target) -> tuple[bool, str]:
    code, output = await target.run(tuple(action.get("command") or ()), None)
    return code == 0, output.decode("utf-8", "replace").strip()


async def _get(action: Object, target: Target) -> tuple[bool, str]:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host = action.get("host") or target.host
    path = str(action.get("path") or "/")
    url = f"{scheme}://{host}:{target.port(action['port'])}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": USER_AGENT, "Accept": "*/*"}
    for header in action.get("httpHeaders") or ():
        headers[header["name"]] = header["value"]
    async with target.http.get(url, headers=headers, max_redirects=REDIRECTS) as response:
        await response.content.read(BODY_LIMIT)
        if 200 <= response.status < 400:
            return True, ""
        return False, f"HTTP probe failed with statuscode: {response.status}"


async def _connect(action: Object, target: Target) -> tuple[bool, str]:
    _, writer = await asyncio.open_connection(action.get("host") or target.host, target.port(action["port"]))
    writer.close()
    return True, ""
