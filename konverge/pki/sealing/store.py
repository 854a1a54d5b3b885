"""The sealed store: each name is a SealedIdentity, a custom resource that only the key encryption key opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError

from konverge.errors import Conflict, Invalid, NotFound
from konverge.model.identity import SealedSpec
from konverge.pki.keystore import FIELD_MANAGER, KeyStore, ObjectApi, StoredFiles, delete_object
from konverge.pki.sealing.envelope import SEAL_BROKEN, Place, rewrap, seal, unseal
from konverge.pki.sealing.wrapping import KeyEncryption

API_VERSION = "konverge.dev/v1alpha1"


class SealedStore(KeyStore):
    """Keeps each name as a SealedIdentity of one namespace, owned by ``owner`` where that is given."""

    def __init__(
        self,
        api: ObjectApi,
        namespace: str,
        fleet: str,
        keys: KeyEncryption,
        *,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._fleet = fleet
        self._owner = owner
        self.keys = keys

    def locate(self, name: str) -> str:
        """Return the object as people name it."""
        return str(self._place(name))

    async def exists(self, name: str) -> bool:
        """Tell whether there is an object of that name."""
        return await self.read(name) is not None

    async def load(self, name: str) -> StoredFiles | None:
        """Return the files of a name in the clear, or None where there are none; Invalid where the seal is broken."""
        body = await self.read(name)
        return await self._decode(body) if body is not None else None

    async def store(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> StoredFiles:
        """Seal the files under a data key of their own and write them."""
        spec = await seal(files, self._place(name), self._fleet, self.keys)
        if not version:
            body = await self._send("POST", self._path(), self._new(name, spec, annotations or {}))
        else:
            body = await self._replace(name, spec, version, annotations or {})
        metadata = body["metadata"]
        return StoredFiles(
            name,
            str(metadata["resourceVersion"]),
            dict(files),
            metadata.get("annotations") or {},
            self.locate(name),
        )

    async def delete(self, name: str, *, version: str = "") -> None:
        """Delete an object."""
        await delete_object(self._api, self._path(name), version)

    async def read(self, name: str) -> dict[str, Any] | None:
        """Return the object as it is stored, still sealed; None where there is none or the kind is not served."""
        try:
            body = await self._api.request("GET", self._path(name))
        except NotFound:
            return None
        document: dict[str, Any] = orjson.loads(body)
        return document

    async def rewrap(self, name: str) -> bool:
        """Wrap the data key of a name under the current key; False where it is or the name is not there."""
        body = await self.read(name)
        if body is None:
            return False
        spec = self.parse(body)
        if spec.key_id == await self.keys.current():
            return False
        fresh = await rewrap(spec, self._place(name), self.keys)
        await self._replace(name, fresh, str(body["metadata"]["resourceVersion"]), {})
        return True

    def parse(self, body: Mapping[str, Any]) -> SealedSpec:
        """Read the spec of an object; Invalid where it is none."""
        try:
            return SealedSpec.model_validate(body.get("spec") or {})
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors())
            raise Invalid(
                f"{self._place(body['metadata']['name'])}: spec cannot be read: {fields}",
                reason="SealBroken",
                hint=SEAL_BROKEN,
            ) from None

    async def _replace(
        self, name: str, spec: SealedSpec, version: str, annotations: Mapping[str, str]
    ) -> dict[str, Any]:
        current = await self.read(name)
        if current is None:
            raise Conflict(f"{self.locate(name)} is gone", reason="Conflict")
        metadata = current["metadata"]
        merged = {**(metadata.get("annotations") or {}), **annotations}
        metadata = {**metadata, "resourceVersion": version, "annotations": merged}
        return await self._send("PUT", self._path(name), {**current, "metadata": metadata, "spec": spec.to_json()})

    async def _decode(self, body: Mapping[str, Any]) -> StoredFiles:
        metadata = body["metadata"]
        name = str(metadata["name"])
        files = await unseal(self.parse(body), self._place(name), self.keys)
        version = str(metadata.get("resourceVersion", ""))
        return StoredFiles(name, version, files, metadata.get("annotations") or {}, self.locate(name))

    async def _send(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self._api.request(method, path, query={"fieldManager": FIELD_MANAGER}, body=body)
        document: dict[str, Any] = orjson.loads(answer)
        return document

    def _new(self, name: str, spec: SealedSpec, annotations: Mapping[str, str]) -> dict[str, Any]:
        labels = {"app.kubernetes.io/managed-by": "konverge", "konverge.dev/fleet": self._fleet}
        metadata: dict[str, Any] = {"name": name, "namespace": self._namespace, "labels": labels}
        if annotations:
            metadata["annotations"] = dict(annotations)
        if self._owner:
            metadata["ownerReferences"] = [dict(self._owner)]
        return {"apiVersion": API_VERSION, "kind": "SealedIdentity", "metadata": metadata, "spec": spec.to_json()}

    def _place(self, name: str) -> Place:
        return Place(self._namespace, name)

    def _path(self, name: str = "") -> str:
        collection = f"/apis/{API_VERSION}/namespaces/{self._namespace}/sealedidentities"
        return collection + (f"/{name}" if name else "")
