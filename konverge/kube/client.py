"""A thin JSON client on the official package's configuration, TLS and session.

The official package reads the kubeconfig, the in-cluster token, exec plugins and OIDC; this module sends
plain dictionaries, because typed models cost twelve times as much on the hot path. It is the one place
where Kubernetes' and aiohttp's errors become ours.
"""

from __future__ import annotations

import asyncio
import io
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import load_incluster_config
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, load_kube_config

from konverge.errors import (
    Busy,
    Conflict,
    Forbidden,
    Invalid,
    KonvergeError,
    NotFound,
    Unavailable,
    UsageError,
)
from konverge.kube.dialling import Dialler
from konverge.kube.resources import Object, Resource

FIELD_MANAGER = "konverge"
REQUEST_TIMEOUT = 30.0
"""Seconds for one request that is not a watch; the API server itself gives up after 60."""
BIG_BODY = 1 << 20
PAGE = 500
"""Objects asked for at once in a list; client-go's pager uses the same."""
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
    if status in (401, 403):
        return Forbidden(text)
    if status == 404:
        return NotFound(text)
    if status == 409:
        return Conflict(text, reason=reason or "Conflict")
    if status == 410:
        return Conflict(text, reason="Expired")
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

    def __init__(self, configuration: Configuration, namespace: str = "default") -> None:
        self._configuration = configuration
        self.server = str(configuration.host).rstrip("/")
        self.namespace = namespace
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0
        """How many requests this client has sent, watches included."""

    @classmethod
    async def connect(cls, kubeconfig: str | Path | None = None, context: str | None = None) -> Self:
        """Build a client from a kubeconfig, else $KUBECONFIG, else ~/.kube/config, else the pod's account."""
        configuration = Configuration()
        namespace = "default"
        if kubeconfig and not await asyncio.to_thread(_any_exists, str(kubeconfig)):
            raise _bad_kubeconfig(kubeconfig, FileNotFoundError("no such file"))
        try:
            loader = await load_kube_config(
                str(kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION),
                context=context,
                client_configuration=configuration,
            )
            namespace = loader.current_context["context"].get("namespace") or "default"
        except (ConfigException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if kubeconfig or context:
                raise _bad_kubeconfig(kubeconfig, error) from error
            try:
                load_incluster_config(client_configuration=configuration)
            except ConfigException:
                raise _bad_kubeconfig(kubeconfig, error) from error
        except Exception as error:  # PyYAML's errors share no base with the others
            raise _bad_kubeconfig(kubeconfig, error) from error
        return cls(configuration, namespace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def session(self) -> aiohttp.ClientSession:
        """Return the session that carries TLS and connection pooling; also used for WebSockets."""
        if self._session is None:
            try:
                self._session = Dialler(self._configuration).open_session()
            except (ssl.SSLError, OSError, ValueError) as error:
                raise _bad_kubeconfig(None, error) from error
        return self._session

    async def headers(self) -> dict[str, str]:
        """Return the authentication headers; a token that expires is refreshed here."""
        settings = await self._configuration.auth_settings()
        token = settings.get("BearerToken")
        return {str(token["key"]): str(token["value"])} if token and token.get("value") else {}

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
        headers = {**await self.headers(), "Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        data = orjson.dumps(body) if body is not None else None
        self.requests += 1
        try:
            async with self.session().request(
                method,
                self.server + path,
                params=query,
                # aiohttp warns of bodies over 1 MiB that are given as bytes, since they hold up the loop.
                data=io.BytesIO(data) if data is not None and len(data) > BIG_BODY else data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                content = await response.read()
                status, told = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        if status >= 300:
            raise map_status(status, content, f"{method} {path}")
        return content, told

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
        """Read all objects and the resourceVersion from which a watch continues."""
        query = {"limit": str(PAGE)}
        if labels:
            query["labelSelector"] = labels
        if fields:
            query["fieldSelector"] = fields
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
            query["continue"] = metadata["continue"]

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
        self.requests += 1
        try:
            async with self.session().get(
                self.server + resource.path(namespace),
                params=query,
                headers={**await self.headers(), "Accept": "application/json"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT, sock_read=timeout + 30),
            ) as response:
                if response.status >= 300:
                    raise map_status(response.status, await response.read(), f"WATCH {resource.path(namespace)}")
                async for line in _lines(response):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise map_status(int(status.get("code", 500)), orjson.dumps(status), "WATCH")
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as error:
            raise self._unreachable(error) from error

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


def _any_exists(paths: str) -> bool:
    return any(os.path.exists(path) for path in paths.split(os.pathsep))


def _bad_kubeconfig(path: str | Path | None, error: Exception) -> UsageError:
    shown = path or "the default kubeconfig"
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(
        f"No usable Kubernetes configuration in {shown}: {cause}",
        reason="BadKubeconfig",
        hint="reference/errors.md#bad-kubeconfig",
    )


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
