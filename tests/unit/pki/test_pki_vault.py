"""Vault as the keeper of the key: what it refuses becomes our failure, and no token or key is ever shown."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from konverge.errors import Busy, Forbidden, Invalid, KonvergeError, NotFound, Unavailable, UsageError
from konverge.pki import vault as module
from konverge.pki.authority import Authority, LeafRequest
from konverge.pki.contexts import build_server_context
from konverge.pki.sealing.envelope import Place, rewrap, seal, unseal
from konverge.pki.vault import VaultSettings, VaultTransit, read_settings
from tests.unit.pki.vault_standin import VaultStandIn, errors, run_vault

HERE = Place("kong", "shop-authority")
FILES = {"tls.key": b"hunter2-the-private-key"}
ACCOUNT = "eyJ.the-service-account-token.of-the-pod"


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[VaultStandIn]:
    now = datetime.now(UTC)
    authority = Authority.create("vault", now)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    request = LeafRequest("vault", ("serverAuth",), ip_addresses=("127.0.0.1",))
    module._LEASES.clear()
    async with run_vault(VaultStandIn(), build_server_context(authority.issue(request, now))) as running:
        yield running


@pytest.fixture
def settings(vault: VaultStandIn, tmp_path: Path) -> VaultSettings:
    return VaultSettings(vault.address, "shop", token=vault.token, authority_file=str(tmp_path / "ca.pem"))


async def failure(call: Any) -> KonvergeError:
    with pytest.raises(KonvergeError) as caught:
        await call
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for secret in ("hunter2", "hvs.", ACCOUNT):
        assert secret not in shown
    # What the HTTP client raises holds the request: it must not come along.
    chained: BaseException | None = caught.value
    while chained is not None:
        assert not hasattr(chained, "request")
        chained = chained.__context__
    return caught.value


async def test_round_trip_and_rewrap_inside_vault(vault: VaultStandIn, settings: VaultSettings) -> None:
    keys = VaultTransit(settings)
    assert await keys.current() == "vault:transit/shop:v1"
    spec = await seal(FILES, HERE, "shop", keys)
    assert spec.key_id == "vault:transit/shop:v1"
    assert await unseal(spec, HERE, keys) == FILES
    vault.rotate()
    assert await unseal(spec, HERE, keys) == FILES
    vault.seen.clear()
    fresh = await rewrap(spec, HERE, keys)
    assert (fresh.key_id, fresh.files) == ("vault:transit/shop:v2", spec.files)
    assert [path for _, path, _ in vault.seen] == ["/v1/transit/rewrap/shop"]
    assert await unseal(fresh, HERE, keys) == FILES
    assert vault.token not in repr(settings) + repr(keys)


async def test_a_spoilt_data_key_is_refused_by_vault(settings: VaultSettings) -> None:
    keys = VaultTransit(settings)
    spec = await seal(FILES, HERE, "shop", keys)
    spoilt = spec.wrapped_key[:-6] + ("AAAAA=" if not spec.wrapped_key.endswith("AAAAA=") else "BBBBB=")
    error = await failure(unseal(spec.replace(wrapped_key=spoilt), HERE, keys))
    assert isinstance(error, Invalid)
    assert error.reason == "VaultRefused"
    assert "SealedIdentity kong/shop-authority" in error.message


async def test_each_refusal_says_what_to_do(vault: VaultStandIn, settings: VaultSettings) -> None:
    cases: list[tuple[VaultSettings, type[KonvergeError], str]] = [
        (replace(settings, token="hvs.wrong"), Forbidden, "VaultForbidden"),
        (replace(settings, key="none"), NotFound, "VaultKeyNotFound"),
        (replace(settings, token=""), UsageError, "VaultTokenMissing"),
        (replace(settings, token_file="/nonexistent/token"), UsageError, "VaultTokenMissing"),
        (replace(settings, address="http://127.0.0.1:1"), UsageError, "VaultAddressUnsafe"),
        (replace(settings, mount="../sys"), UsageError, "VaultAddressUnsafe"),
        (replace(settings, allowed="https://vault.example"), Forbidden, "VaultAddressRefused"),
        (replace(settings, authority_file="/nonexistent"), UsageError, "VaultAuthorityUnreadable"),
        (replace(settings, authority_file=""), Unavailable, "VaultUnavailable"),
        (replace(settings, address="https://127.0.0.1:1"), Unavailable, "VaultUnavailable"),
    ]
    for changed, kind, reason in cases:
        error = await failure(VaultTransit(changed).current())
        assert (type(error), error.reason) == (kind, reason)
    vault.seen.clear()
    await failure(VaultTransit(replace(settings, allowed="https://vault.example")).current())
    assert vault.seen == []


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (503, Unavailable, "VaultSealed"),
        (500, Unavailable, "VaultUnavailable"),
        (429, Busy, "VaultBusy"),
        (400, Invalid, "VaultRefused"),
        (302, Invalid, "VaultRefused"),
    ],
)
async def test_answers_become_failures_without_what_they_quote(
    vault: VaultStandIn, settings: VaultSettings, status: int, kind: type[KonvergeError], reason: str
) -> None:
    quoted = f"no: {vault.token}{'x' * 40}"
    vault.fault = lambda request: errors(status, quoted)
    error = await failure(VaultTransit(settings).wrap(b"hunter2" * 4, b""))
    assert (type(error), error.reason) == (kind, reason)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"data": 1}', '{"data": {"ciphertext": "v1"}}', "<html>"])
async def test_nonsense_is_not_taken_for_vault(vault: VaultStandIn, settings: VaultSettings, body: str) -> None:
    vault.fault = lambda request: web.Response(text=body, content_type="application/json")
    error = await failure(VaultTransit(settings).wrap(b"k" * 32, b""))
    assert error.reason == "VaultUnavailable"


async def test_no_answer_ends_by_the_clock(
    vault: VaultStandIn, settings: VaultSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.hang = asyncio.Event()
    monkeypatch.setattr(module, "VAULT_TIMEOUT", 0.2)
    error = await failure(VaultTransit(settings).wrap(b"hunter2" * 4, b""))
    assert isinstance(error, Unavailable)
    assert "0.2 s" in error.message
    vault.hang.set()


async def test_the_service_account_logs_in_once_per_lease(
    vault: VaultStandIn, settings: VaultSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "token"
    account.write_text(ACCOUNT + "\n")
    vault.accounts[ACCOUNT] = "konverge"
    own = replace(settings, token="", role="konverge", account_file=account)
    for _ in range(3):
        assert await VaultTransit(own).current()
    assert vault.logins == 1
    vault.revoke()
    assert await VaultTransit(own).current()
    assert vault.logins == 2
    vault.lease = 0
    vault.revoke()
    for _ in range(2):
        assert await VaultTransit(own).current()
    assert vault.logins == 4
    account.write_text("eyJ.another")
    error = await failure(VaultTransit(own).current())
    assert (error.reason, "role konverge" in error.message) == ("VaultForbidden", True)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("VAULT_TOKEN", "hvs.x"),
        ("VAULT_CACERT", "/ca"),
        ("VAULT_NAMESPACE", "team"),
        ("KONVERGE_VAULT_ADDRESS", "https://v:8200/"),
        ("KONVERGE_VAULT_TOKEN_FILE", "/t"),
    ):
        monkeypatch.setenv(name, value)
    read = read_settings("https://v:8200/", "shop", mount="/transit/", role="r", auth="kubernetes")
    assert (read.address, read.allowed, read.mount) == ("https://v:8200", "https://v:8200", "transit")
    assert (read.token, read.token_file, read.authority_file, read.namespace) == ("hvs.x", "/t", "/ca", "team")
