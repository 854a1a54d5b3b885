"""A client that hides nothing: what was sent, what came back."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp

DEADLINE = 20.0
"""Seconds within which controllers of a real cluster get round to things."""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Any

    @property
    def reason(self) -> str:
        return str(self.body.get("reason"))

    @property
    def message(self) -> str:
        return str(self.body.get("message"))

    @property
    def causes(self) -> list[tuple[str, str]]:
        return [(c["reason"], c["field"]) for c in (self.body.get("details") or {}).get("causes", [])]


class Watching:
    """A running watch; events one by one."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self, timeout: float = 10.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout):
            line = await self.response.content.readline()
        assert line, "the watch ended"
        event: dict[str, Any] = json.loads(line)
        return event

    async def next_object(self, timeout: float = 10.0) -> tuple[str, str]:
        """Return (type, name), bookmarks left out."""
        while True:
            event = await self.next(timeout)
            if event["type"] != "BOOKMARK":
                return event["type"], event["object"]["metadata"].get("name", "")

    async def rest(self, timeout: float = 15.0) -> list[dict[str, Any]]:
        async with asyncio.timeout(timeout):
            return [json.loads(line) async for line in self.response.content if line.strip()]


class Api:
    """Sends requests as the user of a kubeconfig."""

    def __init__(self, kubeconfig: dict[str, Any]) -> None:
        contexts = {c["name"]: c["context"] for c in kubeconfig["contexts"]}
        context = contexts[kubeconfig["current-context"]]
        cluster = next(c["cluster"] for c in kubeconfig["clusters"] if c["name"] == context["cluster"])
        self._user = next(u["user"] for u in kubeconfig["users"] if u["name"] == context["user"])
        self.server = cluster["server"].rstrip("/")
        self._cluster = cluster
        self._sessions: list[aiohttp.ClientSession] = []

    async def __aenter__(self) -> Self:
        self._session = self._open(self._user)
        self._anonymous = self._open({})
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in self._sessions:
            await session.close()

    def _open(self, user: dict[str, Any]) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cadata=_material(self._cluster, "certificate-authority").decode())
        if "client-certificate" in user or "client-certificate-data" in user:
            with tempfile.TemporaryDirectory() as directory:
                certificate, key = Path(directory, "crt"), Path(directory, "key")
                certificate.write_bytes(_material(user, "client-certificate"))
                key.write_bytes(_material(user, "client-key"))
                context.load_cert_chain(certificate, key)
        headers = {"Authorization": f"Bearer {user['token']}"} if user.get("token") else {}
        connector = aiohttp.TCPConnector(ssl=context)
        session = aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=1 << 20)
        self._sessions.append(session)
        return session

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        token: str | None = None,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; ``token=""`` sends it without credentials."""
        sent = {"Accept": accept, **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        content = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        data = io.BytesIO(content) if content is not None else None
        if data is not None:
            sent["Content-Type"] = content_type
        session = self._session if token is None else self._anonymous
        timeout = aiohttp.ClientTimeout(total=30)
        async with session.request(method, self.server + path, data=data, headers=sent, timeout=timeout) as response:
            text = await response.text()
            try:
                parsed = json.loads(text)
            except ValueError:
                parsed = text
            return Answer(response.status, parsed, response.headers)

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send a request that has to succeed and return its body."""
        answer = await self.send(method, path, body, **options)
        assert answer.status in (200, 201, 202), (method, path, answer.status, answer.body)
        return answer.body

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[Watching]:
        joined = path + ("&" if "?" in path else "?") + "watch=true"
        timeout = aiohttp.ClientTimeout(total=60)
        async with self._session.get(self.server + joined, timeout=timeout) as response:
            assert response.status == 200, await response.text()
            try:
                yield Watching(response)
            finally:
                if response.connection is not None and response.connection.transport is not None:
                    response.connection.transport.abort()


def _material(holder: dict[str, Any], name: str) -> bytes:
    if holder.get(f"{name}-data"):
        return base64.b64decode(holder[f"{name}-data"])
    return Path(holder[name]).read_bytes()


async def wait_for(check: Callable[[], Awaitable[bool]], deadline: float = DEADLINE) -> None:
    """Wait until a controller has done its work: nothing can be awaited there but its outcome."""
    async with asyncio.timeout(deadline):
        while not await check():  # noqa: ASYNC110 - only the outcome of a controller can be seen
            await asyncio.sleep(0.05)


def configmap(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **metadata},
        "data": {"a": "1"} if data is None else data,
    }


def pod(name: str, **spec: Any) -> dict[str, Any]:
    """A pod that no scheduler takes, so that the probes hold on clusters with and without kubelets."""
    containers = [{"name": "c", "image": "example.org/x:1"}]
    return {"metadata": {"name": name}, "spec": {"schedulerName": "nobody", "containers": containers, **spec}}


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "example.org/x:1"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
