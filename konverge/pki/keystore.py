"""Where identities are kept: an interface, and Kubernetes Secrets as the first store behind it.

A store keeps named sets of files and hands out a version with each; a write names the version it is based on,
so that of two writers one gets Conflict. Contents are never part of a repr or a message.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

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


class ObjectStore(KeyStore):
    """Keeps each name as one object of a namespace, labelled, and owned by ``owner`` where that is given.

    ``owner`` is an ownerReference: with it the objects go when the fleet goes. What a kind keeps the files in is
    its own matter.
    """

    api_version: ClassVar[str]
    kind: ClassVar[str]
    root: ClassVar[str]
    """Where the API serves its group and version."""
    plural: ClassVar[str]

    def __init__(
        self, api: ObjectApi, namespace: str, labels: Mapping[str, str], owner: Mapping[str, Any] | None
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._labels = {"app.kubernetes.io/managed-by": "konverge", **labels}
        self._owner = owner

    def locate(self, name: str) -> str:
        """Return the object as people name it."""
        return f"{self.kind} {self._namespace}/{name}"

    async def exists(self, name: str) -> bool:
        """Tell whether there is an object of that name."""
        return await self.read(name) is not None

    async def read(self, name: str) -> dict[str, Any] | None:
        """Return the object as it is stored; None where there is none or the kind is not served."""
        try:
            body = await self._api.request("GET", self._path(name))
        except NotFound:
            return None
        document: dict[str, Any] = orjson.loads(body)
        return document

    async def delete(self, name: str, *, version: str = "") -> None:
        """Delete an object, at ``version`` only where that is given; it is no error where it is gone."""
        body = {"preconditions": {"resourceVersion": version}} if version else None
        try:
            await self._api.request("DELETE", self._path(name), body=body)
        except NotFound:
            return

    async def _create(
        self, name: str, content: Mapping[str, Any], annotations: Mapping[str, str] | None
    ) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "labels": dict(self._labels)}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if self._owner:
            metadata["ownerReferences"] = [dict(self._owner)]
        head = {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}
        return await self._send("POST", self._path(), {**head, **content})

    async def _replace(
        self, name: str, version: str, content: Mapping[str, Any], annotations: Mapping[str, str] | None
    ) -> dict[str, Any]:
        """Replace the content of an object that is at ``version``; annotations are added to those it has."""
        current = await self.read(name)
        if current is None:
            raise Conflict(f"{self.locate(name)} is gone", reason="Conflict")
        metadata = current["metadata"]
        merged = {**(metadata.get("annotations") or {}), **(annotations or {})}
        metadata = {**metadata, "resourceVersion": version, "annotations": merged}
        return await self._send("PUT", self._path(name), {**current, "metadata": metadata, **content})

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._api.request(method, path, query={"fieldManager": FIELD_MANAGER}, body=body)
        document: dict[str, Any] = orjson.loads(answer)
        return document

    def _describe(self, body: Mapping[str, Any], files: Mapping[str, bytes]) -> StoredFiles:
        """Return the files that were found in an object, with its version."""
        metadata = body["metadata"]
        name, version = str(metadata["name"]), str(metadata.get("resourceVersion", ""))
        return StoredFiles(name, version, files, metadata.get("annotations") or {}, self.locate(name))

    def _path(self, name: str = "") -> str:
        return f"{self.root}/namespaces/{self._namespace}/{self.plural}" + (f"/{name}" if name else "")


class SecretStore(ObjectStore):
    """Keeps each name as a Secret."""

    api_version, kind = "v1", "Secret"
    root, plural = "/api/v1", "secrets"

    def __init__(
        self,
        api: ObjectApi,
        namespace: str,
        *,
        labels: Mapping[str, str] | None = None,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(api, namespace, labels or {}, owner)

    async def load(self, name: str) -> StoredFiles | None:
        """Return the files of a Secret, or None where there is none."""
        secret = await self.read(name)
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
        if version:
            return self._decode(await self._replace(name, version, {"data": data}, annotations))
        form = TLS_TYPE if CERTIFICATE_FILE in data and KEY_FILE in data else "Opaque"
        return self._decode(await self._create(name, {"type": form, "data": data}, annotations))

    def _decode(self, secret: Mapping[str, Any]) -> StoredFiles:
        files = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        return self._describe(secret, files)
