"""A stand-in of Vault as far as the transit engine and two ways of authentication go (API of Vault 1.15).

Keys have versions; ``vault:vN:`` ciphertexts are AES-256-GCM, as Vault's aes256-gcm96 keys are. Faults can be set.
"""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


@dataclass
class VaultStandIn:
    """Answers as Vault does; ``seen`` holds method, path and token of every request."""

    token: str = "hvs.given-token-of-the-test"
    accounts: dict[str, str] = field(default_factory=dict)
    """Service account token to role."""
    lease: int = 3600
    keys: dict[str, list[bytes]] = field(default_factory=lambda: {"shop": [os.urandom(32)]})
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    fault: Callable[[web.Request], web.StreamResponse | None] | None = None
    hang: asyncio.Event | None = None
    """While it is set and not yet happened, nothing is answered."""
    issued: set[str] = field(default_factory=set)
    logins: int = 0
    address: str = ""

    def rotate(self, name: str = "shop") -> None:
        self.keys[name].append(os.urandom(32))

    def revoke(self) -> None:
        """Every token of a login ends at once."""
        self.issued.clear()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("X-Vault-Token", "")
        self.seen.append((request.method, request.path, token))
        if self.hang:
            await self.hang.wait()
        if self.fault and (spoilt := self.fault(request)) is not None:
            return spoilt
        if request.path == "/v1/auth/kubernetes/login":
            return self._log_in(await request.json())
        if token != self.token and token not in self.issued:
            return errors(403, "permission denied")
        parts = request.path.removeprefix("/v1/").split("/")
        if len(parts) != 3 or parts[0] != "transit":
            return errors(404)
        return self._transit(parts[1], parts[2], await request.json() if request.can_read_body else {})

    def _log_in(self, body: dict[str, Any]) -> web.Response:
        if self.accounts.get(body["jwt"]) != body["role"]:
            return errors(403, "permission denied")
        self.logins += 1
        token = f"hvs.login-{self.logins}"
        self.issued.add(token)
        return web.json_response({"auth": {"client_token": token, "lease_duration": self.lease}})

    def _transit(self, verb: str, name: str, body: dict[str, Any]) -> web.Response:
        versions = self.keys.get(name)
        if versions is None:
            return errors(404) if verb == "keys" else errors(400, "encryption key not found")
        if verb == "keys":
            return web.json_response({"data": {"name": name, "latest_version": len(versions)}})
        try:
            plain = base64.b64decode(body["plaintext"]) if verb == "encrypt" else open_text(versions, body)
        except (InvalidTag, ValueError, IndexError):
            return errors(400, "cipher: message authentication failed")
        if verb == "decrypt":
            return web.json_response({"data": {"plaintext": base64.b64encode(plain).decode()}})
        nonce = os.urandom(12)
        content = base64.b64encode(nonce + AESGCM(versions[-1]).encrypt(nonce, plain, None)).decode()
        return web.json_response({"data": {"ciphertext": f"vault:v{len(versions)}:{content}"}})


def open_text(versions: list[bytes], body: dict[str, Any]) -> bytes:
    _, version, content = body["ciphertext"].split(":")
    raw = base64.b64decode(content)
    return AESGCM(versions[int(version.removeprefix("v")) - 1]).decrypt(raw[:12], raw[12:], None)


def errors(status: int, *texts: str) -> web.Response:
    return web.json_response({"errors": list(texts)}, status=status)


@asynccontextmanager
async def run_vault(vault: VaultStandIn, context: ssl.SSLContext) -> AsyncIterator[VaultStandIn]:
    """Serve until the block ends."""
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", vault.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        vault.address = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield vault
    finally:
        await runner.cleanup()
