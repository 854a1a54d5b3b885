"""A thin JSON client on the official package's configuration, TLS and session.

The official package reads the kubeconfig, the in-cluster token and OIDC (exec plugins: ``authenticating.py``); this
module sends plain dictionaries, because typed models cost twelve times as much on the hot path. It is the one place
where Kubernetes' and aiohttp's errors become ours.
"""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from konverge.errors import (
    Busy,
    Conflict,
    Forbidden,
    Invalid,
    KonvergeError,
    NotFound,
    Unavailable,
)
from konverge.kube.authenticating import Login
from konverge.kube.authenticating_exec import Credential
from konverge.kube.authenticating_kubeconfig import bad_kubeconfig, load_configuration
from konverge.kube.dialling import Dialler
from konverge.kube.resources import Object, Resource

log = logging.getLogger(__name__)

FIELD_MANAGER = "konverge"
UNAUTHORIZED = "Unauthorized"
"""Reason of a Forbidden where the server does not know who asks (401), which may pass; a right that lacks is 403."""
REQUEST_TIMEOUT = 30.0
"""Seconds for one request that is not a watch; the API server itself gives up after 60."""
BIG_BODY = 1 << 20
PAGE = 500
"""Objects asked for at once in a list; client-go's pager uses the same."""
LIST_TRIES = 3
"""How often a list is begun; the last time it is asked for in one piece."""
EXPIRED = "Expired"
"""Reason of the Conflict for a version that the server does not have any more (410)."""
JSON = "application/json"
METADATA = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


def map_status(status: int, body: bytes, what: str) -> KonvergeError:
    """Turn a response that is not 2xx into the error that says what to do about it."""
    reason, message = _status_details(body)
    text = f"{what}: {message or f'HTTP {status}'}"
    if status == 401:
        return Forbidden(text, reason=UNAUTHORIZED)
    if status == 403:
        return Forbidden(text)
    if status == 404:
        return NotFound(text)
    if status == 409:
        return Conflict(text, reason=reason or "Conflict")
    if status == 410:
        return Conflict(text, reason=EXPIRED)
    if status == 429:
        return Busy(text)
    if status >= 500:
        return Unavailable(text, reason="ApiServerError")
    return Invalid(text, reason=reason or "Invalid")


def _status_details(body: bytes) -> tuple[str, str]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", body[:200].decode("utf-8", "replace").strip()
    if not isinstance(document, dict):
        return "", ""
    return str(document.get("reason") or ""), str(document.get("message") or "")


class KubeClient:
    """Reads and writes Kubernetes objects as dictionaries.

    Use as an async context manager. Every method raises :class:`konverge.errors.KonvergeError`:
    NotFound, Conflict, Forbidden, Invalid, Busy or Unavailable.
    """

    def __init__(self, configuration: Configuration, namespace: str = "default", login: Login | None = None) -> None:
        self._configuration = configuration
        self._login = login
        """Renews the credential where an exec plugin hands it out."""
        self._certificate = login.credential.certificate if login else ""
        """The client certificate of the session, where the login has one."""
        self._retired: aiohttp.ClientSession | None = None
        """The session before the last renewed client certificate: what it carries may come to its end."""
        self.server = str(configuration.host).rstrip("/")
        self.namespace = namespace
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0
        """How many requests this client has sent, watches included."""

    @classmethod
    async def connect(cls, kubeconfig: str | Path | None = None, context: str | None = None) -> Self:
        """Build a client from a kubeconfig, else $KUBECONFIG, else ~/.kube/config, else the pod's account."""
        configuration, namespace, login = await load_configuration(kubeconfig, context)
        return cls(configuration, namespace, login)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        if self._login is not None:
            await self._login.close()
        for session in (self._session, self._retired):
            if session is not None:
                await session.close()
        self._session = self._retired = None

    def session(self) -> aiohttp.ClientSession:
        """Return the session that carries TLS and connection pooling; also used for WebSockets."""
        if self._session is None:
            try:
                self._session = Dialler(self._configuration).open_session()
            except (ssl.SSLError, OSError, ValueError) as error:
                raise bad_kubeconfig(None, error) from error
        return self._session

    async def headers(self) -> dict[str, str]:
        """Return the authentication headers; a token that expires is read or asked for again here.

        Unavailable where there is none.
        """
        if self._login is not None:
            await self._login.keep_valid()
            await self._follow(self._login.credential)
        try:
            settings = await self._configuration.auth_settings()
        except (ConfigException, OSError, ValueError) as error:
            raise Unavailable(
                f"The token for the Kubernetes API at {self.server} cannot be read: {error}",
                reason="TokenUnreadable",
                hint="reference/errors.md#bad-kubeconfig",
            ) from error
        token = settings.get("BearerToken")
        return {str(token["key"]): str(token["value"])} if token and token.get("value") else {}

    async def _follow(self, credential: Credential) -> None:
        """Leave the session whose client certificate was renewed."""
        if credential.certificate != self._certificate:
            self._certificate = credential.certificate
            ended, self._retired, self._session = self._retired, self._session, None
            if ended is not None:
                await ended.close()

    async def _renew_refused(self, refused: Credential | None) -> bool:
        return self._login is not None and refused is not None and await self._login.renew_refused(refused)

    def _credential(self) -> Credential | None:
        return self._login.credential if self._login is not None else None

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float = REQUEST_TIMEOUT,
    ) -> bytes:
        """Send one request and return the body of a 2xx answer."""
        answer, _ = await self.ask(
            method, path, query=query, body=body, content_type=content_type, accept=accept, timeout=timeout
        )
        return answer

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        timeout: float = REQUEST_TIMEOUT,
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send one request and return body and headers of a 2xx answer."""
        data = orjson.dumps(body) if body is not None else None
        means = {"Accept": accept} | ({"Content-Type": content_type} if body is not None else {})
        limit = aiohttp.ClientTimeout(total=timeout)
        headers, used = await self.headers(), self._credential()
        answer = await self._exchange(method, path, query, data, headers | means, limit)
        if answer[0] == 401 and await self._renew_refused(used):
            answer = await self._exchange(method, path, query, data, await self.headers() | means, limit)
        status, content, told = answer
        if status >= 300:
            raise self._refusal(status, content, f"{method} {path}")
        return content, told

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """Return status, body and headers of whatever is answered."""
        self.requests += 1
        try:
            async with self.session().request(
                method,
                self.server + path,
                params=query,
                # aiohttp warns of bodies over 1 MiB that are given as bytes, since they hold up the loop.
                data=io.BytesIO(data) if data is not None and len(data) > BIG_BODY else data,
                headers=headers,
                timeout=timeout,
            ) as response:
                return response.status, await response.read(), response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    def _refusal(self, status: int, body: bytes, what: str) -> KonvergeError:
        if status == 401 and self._login is not None and self._login.failure:
            what = f"{what} (and the credential could not be renewed: {self._login.failure})"
        return map_status(status, body, what)

    def _unreachable(self, error: Exception) -> Unavailable:
        cause = str(error) or type(error).__name__
        return Unavailable(
            f"The Kubernetes API at {self.server} does not answer: {cause}",
            reason="ApiUnreachable",
            hint="reference/errors.md#api-unreachable",
        )

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """Read one object."""
        return _object(await self.request("GET", self._path(resource, namespace, name)))

    async def find(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        """Read one object, or None where it does not exist."""
        try:
            return await self.get(resource, name, namespace)
        except NotFound:
            return None

    async def list_all(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> list[Object]:
        """Read all objects of a kind, page by page; ``namespace=None`` means every namespace.

        ``metadata_only`` leaves out what is heavy or secret: the server sends nothing but ``metadata``.
        """
        items, _ = await self.list_at(
            resource, namespace, labels=labels, fields=fields, accept=METADATA if metadata_only else JSON
        )
        return items

    async def list_at(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        accept: str = JSON,
    ) -> tuple[list[Object], str]:
        """Read all objects and the resourceVersion from which a watch continues.

        A list whose pages outlive the version that they are of (410; etcd is compacted every 5 minutes) starts again.
        The token that the server offers then is not taken: it goes on in a newer version, and what moved is missed.
        """
        query = {"labelSelector": labels} if labels else {}
        if fields:
            query["fieldSelector"] = fields
        for _ in range(LIST_TRIES - 1):
            try:
                return await self._list_pages(resource, namespace, {**query, "limit": str(PAGE)}, accept)
            except Conflict as error:
                if error.reason != EXPIRED:
                    raise
                log.info("the list of %s outlived its version and starts again", resource.plural)
        # In one piece nothing expires; client-go's pager does the same.
        return await self._list_pages(resource, namespace, query, accept)

    async def _list_pages(
        self, resource: Resource, namespace: str | None, query: dict[str, str], accept: str
    ) -> tuple[list[Object], str]:
        items: list[Object] = []
        while True:
            page = _object(await self.request("GET", resource.path(namespace), query=query, accept=accept))
            for item in page.get("items") or ():
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
                items.append(item)
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return items, str(metadata.get("resourceVersion", ""))
            query = {**query, "continue": metadata["continue"]}

    async def create(self, resource: Resource, body: Object, namespace: str | None = None) -> Object:
        """Create an object; Conflict with reason AlreadyExists where it exists."""
        path = self._path(resource, namespace or _namespace_of(body))
        return _object(await self.request("POST", path, body=body, query={"fieldManager": FIELD_MANAGER}))

    async def replace(self, resource: Resource, body: Object, subresource: str | None = None) -> Object:
        """Replace an object; Conflict where its resourceVersion is not the current one."""
        path = self._path(resource, _namespace_of(body), body["metadata"]["name"], subresource)
        return _object(await self.request("PUT", path, body=body, query={"fieldManager": FIELD_MANAGER}))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str | None = None,
    ) -> Object:
        """Patch an object; ``kind`` is one of merge, json, strategic."""
        path = self._path(resource, namespace, name, subresource)
        return _object(
            await self.request(
                "PATCH",
                path,
                body=patch,
                content_type=PATCH_TYPES[kind],
                query={"fieldManager": FIELD_MANAGER},
            )
        )

    async def apply(
        self, resource: Resource, body: Object, *, force: bool = True, subresource: str | None = None
    ) -> Object:
        """Server-side apply under the field manager ``konverge``; creates the object where it is missing."""
        path = self._path(resource, _namespace_of(body), body["metadata"]["name"], subresource)
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        return _object(await self.request("PATCH", path, body=body, content_type=PATCH_TYPES["apply"], query=query))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        grace: int | None = None,
    ) -> None:
        """Delete an object; it is no error where it is gone already."""
        options: dict[str, Any] = {"propagationPolicy": propagation}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self.request("DELETE", self._path(resource, namespace, name), body=options)
        except NotFound:
            return

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        version: str = "",
        labels: str = "",
        fields: str = "",
        timeout: int = 300,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) from ``version`` on until the server ends the watch after ``timeout`` seconds.

        Bookmarks are yielded too. An ERROR event is raised: Conflict with reason Expired means 410.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(timeout)}
        for key, value in (
            ("resourceVersion", version),
            ("labelSelector", labels),
            ("fieldSelector", fields),
        ):
            if value:
                query[key] = value
        try:
            async with self._open_watch(resource.path(namespace), query, timeout) as response:
                async for line in _lines(response):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise map_status(int(status.get("code", 500)), orjson.dumps(status), "WATCH")
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def _open_watch(
        self, path: str, query: Mapping[str, str], timeout: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        limit = aiohttp.ClientTimeout(total=None, connect=REQUEST_TIMEOUT, sock_read=timeout + 30)
        for again in (True, False):
            headers, used = {**await self.headers(), "Accept": JSON}, self._credential()
            self.requests += 1
            async with self.session().get(
                self.server + path, params=query, headers=headers, timeout=limit
            ) as response:
                if response.status < 300:
                    yield response
                    return
                status, body = response.status, await response.read()
            if not (again and status == 401 and await self._renew_refused(used)):
                raise self._refusal(status, body, f"WATCH {path}")

    def _path(
        self,
        resource: Resource,
        namespace: str | None,
        name: str | None = None,
        subresource: str | None = None,
    ) -> str:
        return resource.path((namespace or self.namespace) if resource.namespaced else None, name, subresource)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split the stream at newlines without a limit on the length of one."""
    rest_of_line = bytearray()
    async for chunk in response.content.iter_any():
        rest_of_line += chunk
        *complete, tail = bytes(rest_of_line).split(b"\n") if b"\n" in chunk else (bytes(rest_of_line),)
        rest_of_line = bytearray(tail)
        for line in complete:
            if line.strip():
                yield line


def _object(content: bytes) -> Object:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(
            "The server answered, but not with JSON: it is no Kubernetes API, or something is in between",
            reason="NotAnApiServer",
            hint="reference/errors.md#api-unreachable",
        )
    return document


def _namespace_of(body: Object) -> str | None:
    namespace = body.get("metadata", {}).get("namespace")
    return str(namespace) if namespace else None


async def wait_until_reachable(client: KubeClient, timeout: float) -> None:
    """Return once the API server answers /readyz; Unavailable after ``timeout`` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            await client.request("GET", "/readyz", timeout=2.0)
            return
        except Unavailable:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(0.05)
