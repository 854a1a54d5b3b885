"""The sealed store: each name is a SealedIdentity, a custom resource that only the key encryption key opens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from konverge.errors import Invalid
from konverge.model.identity import SealedSpec
from konverge.pki.keystore import ObjectApi, ObjectStore, StoredFiles
from konverge.pki.sealing.envelope import SEAL_BROKEN, Place, rewrap, seal, unseal
from konverge.pki.sealing.wrapping import KeyEncryption


class SealedStore(ObjectStore):
    """Keeps each name as a SealedIdentity."""

    api_version, kind = "konverge.dev/v1alpha1", "SealedIdentity"
    root, plural = f"/apis/{api_version}", "sealedidentities"

    def __init__(
        self,
        api: ObjectApi,
        namespace: str,
        fleet: str,
        keys: KeyEncryption,
        *,
        owner: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(api, namespace, {"konverge.dev/fleet": fleet}, owner)
        self._fleet = fleet
        self.keys = keys

    async def load(self, name: str) -> StoredFiles | None:
        """Return the files of a name in the clear, or None where there are none; Invalid where the seal is broken."""
        body = await self.read(name)
        if body is None:
            return None
        return self._describe(body, await unseal(self.parse(body), self._place(name), self.keys))

    async def store(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> StoredFiles:
        """Seal the files under a data key of their own and write them."""
        spec = (await seal(files, self._place(name), self._fleet, self.keys)).to_json()
        if version:
            body = await self._replace(name, version, {"spec": spec}, annotations)
        else:
            body = await self._create(name, {"spec": spec}, annotations)
        return self._describe(body, dict(files))

    async def rewrap(self, name: str) -> bool:
        """Wrap the data key of a name under the current key; False where it is or the name is not there."""
        body = await self.read(name)
        if body is None:
            return False
        spec = self.parse(body)
        if spec.key_id == await self.keys.current():
            return False
        fresh = await rewrap(spec, self._place(name), self.keys)
        await self._replace(name, str(body["metadata"]["resourceVersion"]), {"spec": fresh.to_json()}, None)
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

    def _place(self, name: str) -> Place:
        return Place(self._namespace, name)
