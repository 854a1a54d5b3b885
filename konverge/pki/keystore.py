"""Where identities are kept: an interface, and Kubernetes Secrets as the first store behind it.

A store keeps named sets of files and hands out a version with each; a write names the version it is based on,
so that of two writers one gets Conflict. Contents are never part of a repr or a message.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from konverge.errors import Conflict, NotFound
from konverge.pki.files import CERTIFICATE_FILE, KEY_FILE

TLS_TYPE = "kubernetes.io/tls"
FIELD_MANAGER = "konverge"


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """A named set of files and the version it was read at."""

    name: str
    version: str
    files: Mapping[str, bytes] = field(repr=False)
    annotations: Mapping[str, str] = field(default_factory=dict)
    place: str = ""
    """The object that holds them, as people name it: kind, namespace, name."""


class KeyStore(ABC):
    """Loads and stores named sets of files."""

    @abstractmethod
    def locate(self, name: str) -> str:
        """Return the object that holds a name, as people name it: kind, namespace, name."""

    @abstractmethod
    async def load(self, name: str) -> StoredFiles | None:
        """Return the files of a name, or None where there are none."""

    @abstractmethod
    async def store(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> StoredFiles:
        """Write all files of a name; what is not among ``files`` goes.

        ``version`` is that of the set that is replaced, empty where it is new. Conflict where another writer
        came first. ``annotations`` are added to those there are.
        """

    @abstractmethod
    async def delete(self, name: str, *, version: str = "") -> None:
        """Delete a name; it is no error where it is gone. Conflict where it is no longer at ``version``."""


class ObjectApi(Protocol):
    """The part of a Kubernetes client that the store needs; :class:`konverge.kube.client.KubeClient` has it."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None
    ) -> bytes:
        """Send one request and return the body of a 2xx answer; raises konverge.errors otherwise."""


class SecretStore(KeyStore):
    """Keeps each name as a Secret of one namespace, labelled, and owned by ``owner`` where that is given.

    ``owner`` is an ownerReference: with it the Secrets go when the fleet goes.
    """

    def __init__(
        self,
        api: ObjectApi,
        namespace: str,
        *,
        labels: Mapping[str, str] | None = None,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._labels = {"app.kubernetes.io/managed-by": "konverge", **(labels or {})}
        self._owner = owner

    def locate(self, name: str) -> str:
        """Return the Secret as people name it."""
        return f"Secret {self._namespace}/{name}"

    async def exists(self, name: str) -> bool:
        """Tell whether there is a Secret of that name."""
        return await self._read(name) is not None

    async def load(self, name: str) -> StoredFiles | None:
        """Return the files of a Secret, or None where there is none."""
        secret = await self._read(name)
        return self._decode(secret) if secret is not None else None

    async def store(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> StoredFiles:
        """Create or replace a Secret."""
        data = {key: base64.b64encode(value).decode("ascii") for key, value in files.items()}
        if not version:
            secret = self._new(name, data, annotations or {})
            return self._decode(await self._send("POST", self._path(), secret))
        current = await self._read(name)
        if current is None:
            raise Conflict(f"{self.locate(name)} is gone", reason="Conflict")
        metadata = current["metadata"]
        merged = {**(metadata.get("annotations") or {}), **(annotations or {})}
        metadata = {**metadata, "resourceVersion": version, "annotations": merged}
        return self._decode(
            await self._send("PUT", self._path(name), {**current, "metadata": metadata, "data": data})
        )

    async def delete(self, name: str, *, version: str = "") -> None:
        """Delete a Secret."""
        await delete_object(self._api, self._path(name), version)

    async def _read(self, name: str) -> dict[str, Any] | None:
        try:
            body = await self._api.request("GET", self._path(name))
        except NotFound:
            return None
        secret: dict[str, Any] = orjson.loads(body)
        return secret

    async def _send(self, method: str, path: str, secret: dict[str, Any]) -> dict[str, Any]:
        body = await self._api.request(method, path, query={"fieldManager": FIELD_MANAGER}, body=secret)
        answer: dict[str, Any] = orjson.loads(body)
        return answer

    def _new(self, name: str, data: Mapping[str, str], annotations: Mapping[str, str]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "labels": dict(self._labels)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if self._owner:
            metadata["ownerReferences"] = [dict(self._owner)]
        kind = TLS_TYPE if CERTIFICATE_FILE in data and KEY_FILE in data else "Opaque"
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": dict(data)}

    def _path(self, name: str = "") -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets" + (f"/{name}" if name else "")

    def _decode(self, secret: Mapping[str, Any]) -> StoredFiles:
        metadata = secret["metadata"]
        name = str(metadata["name"])
        files = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        version = str(metadata.get("resourceVersion", ""))
        return StoredFiles(name, version, files, metadata.get("annotations") or {}, self.locate(name))


async def delete_object(api: ObjectApi, path: str, version: str = "") -> None:
    """Delete an object, at ``version`` only where that is given; it is no error where it is gone."""
    body = {"preconditions": {"resourceVersion": version}} if version else None
    try:
        await api.request("DELETE", path, body=body)
    except NotFound:
        return
