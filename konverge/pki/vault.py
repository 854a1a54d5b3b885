"""Vault's transit engine as the keeper of the key encryption key (API: POST transit/encrypt, decrypt, rewrap).

The key never leaves Vault, and a rewrap never shows it the way back: Vault exchanges one ciphertext for another.
Who we are is proved by a token, or by the service account of the pod (auth/kubernetes/login), whose token is
kept for two thirds of its lease so that a reader every few seconds does not pile up leases.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import os
import re
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from typing_extensions import override

from konverge.errors import Busy, Forbidden, Invalid, KonvergeError, NotFound, Unavailable, UsageError
from konverge.pki.sealing.wrapping import KeyEncryption, Wrapped

VAULT_TIMEOUT = 10.0
"""Seconds for one call; transit answers within milliseconds."""
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
LEASE_PART = 2 / 3
LONGEST_ANSWER = 1 << 20
_PATH = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_LONG_WORD = re.compile(r"\S{40,}")
"""What could be a token or a key in the words of another; a sentence has none."""
HINT = "reference/errors.md#vault"


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """Which key of which Vault, and as whom. ``token`` and ``token_file`` come before ``role``.

    ``allowed`` is the one address to which this process may show its credentials, "" for any: the address is a
    field of the fleet, and whoever may edit a fleet is not to collect tokens.
    """

    address: str
    key: str
    mount: str = "transit"
    role: str = ""
    auth: str = "kubernetes"
    token: str = field(default="", repr=False)
    token_file: str = ""
    account_file: Path = SERVICE_ACCOUNT_TOKEN
    authority_file: str = ""
    namespace: str = ""
    allowed: str = ""


def read_settings(address: str, key: str, *, mount: str, role: str, auth: str) -> VaultSettings:
    """Return settings with the credentials of this process.

    They come from the environment: VAULT_TOKEN, VAULT_CACERT and VAULT_NAMESPACE as Vault's own command reads
    them; KONVERGE_VAULT_TOKEN_FILE, KONVERGE_VAULT_ACCOUNT_FILE and KONVERGE_VAULT_ADDRESS beside them.
    """
    environment = os.environ
    return VaultSettings(
        address=address.rstrip("/"),
        key=key,
        mount=mount.strip("/"),
        role=role,
        auth=auth.strip("/"),
        token=environment.get("VAULT_TOKEN", ""),
        token_file=environment.get("KONVERGE_VAULT_TOKEN_FILE", ""),
        account_file=Path(environment.get("KONVERGE_VAULT_ACCOUNT_FILE", "") or SERVICE_ACCOUNT_TOKEN),
        authority_file=environment.get("VAULT_CACERT", ""),
        namespace=environment.get("VAULT_NAMESPACE", ""),
        allowed=environment.get("KONVERGE_VAULT_ADDRESS", "").rstrip("/"),
    )


class VaultTransit(KeyEncryption):
    """Wraps data keys by Vault's transit engine. The id of a key is ``vault:MOUNT/NAME:vN``."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings

    @property
    def source(self) -> str:
        """The key as people name it."""
        return f"Vault's key {self._settings.mount}/{self._settings.key} at {self._settings.address}"

    async def current(self) -> str:
        """Return the id of the newest version of the key."""
        answer = await self._call("GET", f"{self._settings.mount}/keys/{_segment(self._settings.key)}")
        return self._identify(f"vault:v{answer.get('latest_version', '')}:")

    @override
    async def wrap(self, key: bytes, context: bytes) -> Wrapped:
        """Encrypt a data key under the newest version."""
        plaintext = base64.b64encode(key).decode("ascii")
        return self._wrapped(await self._transit("encrypt", {"plaintext": plaintext}, self.source))

    @override
    async def unwrap(self, wrapped: Wrapped, context: bytes, what: str) -> bytes:
        """Decrypt a data key; Invalid where Vault does not take the ciphertext as one of this key."""
        answer = await self._transit("decrypt", {"ciphertext": wrapped.ciphertext}, what)
        try:
            return base64.b64decode(str(answer["plaintext"]), validate=True)
        except (KeyError, binascii.Error, ValueError):
            raise self._nonsense() from None

    @override
    async def rewrap(self, wrapped: Wrapped, context: bytes, what: str) -> Wrapped:
        """Exchange a ciphertext for one under the newest version; the data key stays inside Vault."""
        return self._wrapped(await self._transit("rewrap", {"ciphertext": wrapped.ciphertext}, what))

    async def _transit(self, verb: str, body: dict[str, str], what: str) -> dict[str, Any]:
        return await self._call("POST", f"{self._settings.mount}/{verb}/{_segment(self._settings.key)}", body, what)

    def _wrapped(self, answer: dict[str, Any]) -> Wrapped:
        ciphertext = str(answer.get("ciphertext", ""))
        return Wrapped(self._identify(ciphertext), ciphertext)

    def _identify(self, ciphertext: str) -> str:
        scheme, version, *_ = [*ciphertext.split(":", 2), "", ""]
        if scheme != "vault" or not version.removeprefix("v").isdigit():
            raise self._nonsense()
        return f"vault:{self._settings.mount}/{self._settings.key}:{version}"

    async def _call(
        self, method: str, path: str, body: dict[str, str] | None = None, what: str = ""
    ) -> dict[str, Any]:
        """Call with a token; a kept one that is no longer valid is exchanged once."""
        settings = self._settings
        _refuse_settings(settings)
        async with await _open_client(settings) as client:
            kept = await _find_token(client, settings)
            status, answer = await _send(client, settings, method, path, body, kept)
            if status == 403 and settings.role and not _given_token(settings):
                _LEASES.pop(_lease_key(settings), None)
                kept = await _find_token(client, settings)
                status, answer = await _send(client, settings, method, path, body, kept)
        if status >= 300:
            raise _map_status(status, answer, f"{what or self.source}: {method} {path}")
        data = answer.get("data")
        if not isinstance(data, dict):
            raise self._nonsense()
        return data

    def _nonsense(self) -> Unavailable:
        return Unavailable(
            f"{self._settings.address} answers, but not as Vault's transit engine does",
            reason="VaultUnavailable",
            hint=HINT,
        )


@dataclass(frozen=True, slots=True)
class _Lease:
    token: str = field(repr=False)
    until: float


_LEASES: dict[tuple[str, ...], _Lease] = {}
"""Tokens of logins by who logged in where; only in memory, for the time of this process."""


def _lease_key(settings: VaultSettings) -> tuple[str, ...]:
    return settings.address, settings.namespace, settings.auth, settings.role, str(settings.account_file)


def _given_token(settings: VaultSettings) -> bool:
    return bool(settings.token_file or settings.token)


async def _find_token(client: httpx.AsyncClient, settings: VaultSettings) -> str:
    if settings.token_file:
        return await asyncio.to_thread(_read_secret, Path(settings.token_file), "Vault's token")
    if settings.token:
        return settings.token
    if not settings.role:
        raise UsageError(
            "There is no token for Vault: set KONVERGE_VAULT_TOKEN_FILE or VAULT_TOKEN, or vaultRole in the fleet",
            reason="VaultTokenMissing",
            hint=HINT,
        )
    lease = _LEASES.get(_lease_key(settings))
    if lease is None or time.monotonic() >= lease.until:
        lease = await _log_in(client, settings)
        _LEASES[_lease_key(settings)] = lease
    return lease.token


async def _log_in(client: httpx.AsyncClient, settings: VaultSettings) -> _Lease:
    account = await asyncio.to_thread(_read_secret, settings.account_file, "the service account's token")
    path = f"auth/{settings.auth}/login"
    status, answer = await _send(client, settings, "POST", path, {"role": settings.role, "jwt": account}, "")
    if status >= 300:
        raise _map_status(status, answer, f"Vault at {settings.address}: role {settings.role}: POST {path}")
    granted = answer.get("auth") or {}
    lasting = float(granted.get("lease_duration") or 0) * LEASE_PART
    return _Lease(str(granted.get("client_token", "")), time.monotonic() + lasting)


async def _send(
    client: httpx.AsyncClient,
    settings: VaultSettings,
    method: str,
    path: str,
    body: dict[str, str] | None,
    token: str,
) -> tuple[int, dict[str, Any]]:
    """Send one request. The client's errors hold the request, key and token with it: none is chained to ours."""
    headers = {"X-Vault-Request": "true"}
    if token:
        headers["X-Vault-Token"] = token
    if settings.namespace:
        headers["X-Vault-Namespace"] = settings.namespace
    failure = ""
    try:
        async with asyncio.timeout(VAULT_TIMEOUT):
            response = await client.request(method, f"/v1/{path}", json=body, headers=headers)
        return response.status_code, _read_answer(response)
    except TimeoutError:
        failure = f"no answer within {VAULT_TIMEOUT:g} s"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        failure = str(error)[:200] or type(error).__name__
    raise Unavailable(f"Vault at {settings.address} does not answer: {failure}", reason="VaultUnavailable", hint=HINT)


def _read_answer(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json() if len(response.content) <= LONGEST_ANSWER else None
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _map_status(status: int, answer: dict[str, Any], what: str) -> KonvergeError:
    """Turn an answer into the failure that says what to do; of the answer only Vault's own error texts are shown."""
    told = answer.get("errors")
    text = "; ".join(str(item) for item in told)[:300].strip() if isinstance(told, list) else ""
    text = _LONG_WORD.sub("...", text)
    message = f"{what}: {text or f'HTTP {status}'}"
    if status == 403:
        return Forbidden(message, reason="VaultForbidden", hint=HINT)
    if status == 404:
        return NotFound(message, reason="VaultKeyNotFound", hint=HINT)
    if status == 429:
        return Busy(message, reason="VaultBusy", hint=HINT)
    if status >= 500:
        return Unavailable(message, reason="VaultSealed" if status == 503 else "VaultUnavailable", hint=HINT)
    return Invalid(message, reason="VaultRefused", hint=HINT)


def _refuse_settings(settings: VaultSettings) -> None:
    for name, path in (("vaultMount", settings.mount), ("vaultAuth", settings.auth)):
        if not _PATH.fullmatch(path):
            raise UsageError(
                f"spec.identity.store.{name} is {path!r}, which is no path of a mount",
                reason="VaultAddressUnsafe",
                hint=HINT,
            )
    if not settings.address.startswith("https://"):
        raise UsageError(
            f"spec.identity.store.vaultAddress is {settings.address!r}; it has to begin with https://",
            reason="VaultAddressUnsafe",
            hint=HINT,
        )
    if settings.allowed and settings.address != settings.allowed:
        raise Forbidden(
            f"spec.identity.store.vaultAddress is {settings.address}; KONVERGE_VAULT_ADDRESS lets"
            f" {settings.allowed} alone see the credentials of this process",
            reason="VaultAddressRefused",
            hint=HINT,
        )


async def _open_client(settings: VaultSettings) -> httpx.AsyncClient:
    context = await asyncio.to_thread(_trust, settings.authority_file)
    return httpx.AsyncClient(
        base_url=settings.address, verify=context, timeout=VAULT_TIMEOUT, follow_redirects=False, trust_env=False
    )


def _trust(authority_file: str) -> ssl.SSLContext:
    try:
        return _build_context(authority_file, Path(authority_file).stat().st_mtime_ns if authority_file else 0)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"VAULT_CACERT={authority_file} cannot be read: {error.strerror or error}",
            reason="VaultAuthorityUnreadable",
            hint=HINT,
        ) from None


@functools.lru_cache(maxsize=4)
def _build_context(authority_file: str, _changed: int) -> ssl.SSLContext:
    """Build a context once per state of the file: the system's authorities take 20 ms to read."""
    context = ssl.create_default_context(cafile=authority_file or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _read_secret(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or "it is no text"
        raise UsageError(
            f"{what} cannot be read from {path}: {cause}", reason="VaultTokenMissing", hint=HINT
        ) from None


def _segment(name: str) -> str:
    return quote(name, safe="")
