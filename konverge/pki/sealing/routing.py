"""The store of a fleet: what a proxy mounts is a Secret, everything else is where the fleet says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from konverge.errors import Conflict, Forbidden
from konverge.pki.keystore import KeyStore, SecretStore, StoredFiles
from konverge.pki.sealing.store import SealedStore

MIGRATE = "howto/sealed-keys.md#moving-between-stores"


class RoutedStore(KeyStore):
    """Writes to the store in force and reads, until it has been moved, what only the other one has.

    So nobody takes an identity that was not moved yet for one that is missing, and makes a second one. The names
    in ``mounted`` live in Secrets always: the kubelet projects nothing else.
    """

    def __init__(
        self, secrets: SecretStore, sealed: SealedStore, *, seals: bool, mounted: Iterable[str] = ()
    ) -> None:
        self.secrets = secrets
        self.sealed = sealed
        self.seals = seals
        self._mounted = frozenset(mounted)

    def locate(self, name: str) -> str:
        """Return the object in which a name belongs, as people name it."""
        return self.home(name).locate(name)

    def home(self, name: str) -> SecretStore | SealedStore:
        """Return the store in which a name belongs."""
        return self.sealed if self.seals and name not in self._mounted else self.secrets

    def elsewhere(self, name: str) -> SecretStore | SealedStore:
        """Return the store in which a name does not belong."""
        return self.secrets if self.home(name) is self.sealed else self.sealed

    async def load(self, name: str) -> StoredFiles | None:
        """Return the files from where they belong, else from where they still are."""
        found = await self.home(name).load(name)
        if found is not None or name in self._mounted:
            return found
        try:
            return await self.elsewhere(name).load(name)
        except Forbidden:
            if self.seals:
                raise
            return None  # an installation that never sealed anything needs no right to read sealed objects

    async def store(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        version: str = "",
        annotations: Mapping[str, str] | None = None,
    ) -> StoredFiles:
        """Write the files where they belong; Conflict where they have not been moved there yet."""
        home = self.home(name)
        if version and not await home.exists(name):
            raise Conflict(
                f"{home.locate(name)} does not exist; it is still {self.elsewhere(name).locate(name)}",
                reason="NotMoved",
                hint=MIGRATE,
            )
        return await home.store(name, files, version=version, annotations=annotations)

    async def delete(self, name: str, *, version: str = "") -> None:
        """Delete a name from both stores; ``version`` counts for the one in which it belongs."""
        await self.home(name).delete(name, version=version)
        if name not in self._mounted:
            await self.elsewhere(name).delete(name)
