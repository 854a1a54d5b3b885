"""Key encryption keys: what wraps the data keys of sealed identities, wherever it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key that is encrypted, and the id of the key that encrypts it."""

    key_id: str
    ciphertext: str = field(repr=False)


class KeyEncryption(ABC):
    """Wraps and unwraps data keys. The key itself is never handed out.

    ``context`` is authenticated with the wrapped key where the keeper can do that; ``what`` names the object
    in messages. All methods raise konverge.errors.
    """

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the key is kept, for messages."""

    @abstractmethod
    async def current(self) -> str:
        """Return the id of the key that :meth:`wrap` uses."""

    @abstractmethod
    async def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """Encrypt a data key under the current key."""

    @abstractmethod
    async def unwrap(self, wrapped: Wrapped, context: bytes, what: str) -> bytes:
        """Decrypt a data key under whichever key wrapped it, as long as that is kept."""

    async def rewrap(self, wrapped: Wrapped, context: bytes, what: str) -> Wrapped:
        """Return the data key wrapped under the current key."""
        return await self.wrap(await self.unwrap(wrapped, context, what), context)
