"""A fleet whose certificates somebody else signs follows what is offered; its authority is not rotated from here."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_kube import FakeKube

from konverge.errors import Invalid
from konverge.kube.resources import PROXY_FLEETS, SECRETS
from konverge.model.fleet import FleetSpec, Identity, Issuer
from konverge.model.proxy import Proxy
from konverge.operate import rotating
from konverge.operate.fleets import parse_fleet
from konverge.operate.following import follow_issuer, is_behind
from konverge.operate.identities import ensure_identity, load_keys, request_for_controller, request_for_proxies
from konverge.operate.rotating import Rotation
from konverge.pki.authority import Authority

NOW = datetime(2026, 5, 1, tzinfo=UTC)


async def no_proxies(*_: Any) -> list[Proxy]:
    return []


async def test_new_leaves_of_a_new_authority_are_adopted_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotating, "discover_proxies", no_proxies)
    kube = FakeKube()
    spec = FleetSpec(proxy_service="s", identity=Identity(issuer=Issuer(kind="secret")))
    fleet = parse_fleet(kube.put(PROXY_FLEETS, {"metadata": {"name": "shop"}, "spec": spec.to_json()}))

    def fill(authority: Authority) -> None:
        """What somebody else does: both Secrets are written anew."""
        for name, request in (
            (fleet.issued_controller_secret, request_for_controller(fleet)),
            (fleet.issued_proxy_secret, request_for_proxies(fleet)),
        ):
            leaf = authority.issue(request, NOW)
            files = {"tls.crt": leaf.chain_pem, "tls.key": leaf.key.to_pem(), "ca.crt": authority.pem}
            data = {key: base64.b64encode(value).decode() for key, value in files.items()}
            kube.put(SECRETS, {"metadata": {"name": name}, "data": data})

    fill(Authority.create("first", NOW))
    await ensure_identity(kube, fleet, lambda: NOW)
    rotation = Rotation(kube, fleet, lambda: NOW)
    keys = await rotation.keys()
    assert not await is_behind(rotation, keys)
    with pytest.raises(Invalid) as caught:
        _ = keys.authorities
    assert caught.value.reason == "AuthorityNotOurs"

    second = Authority.create("second", NOW)
    fill(second)
    assert await is_behind(rotation, keys)
    before = len(kube.writes)
    report = await follow_issuer(rotation)
    assert not report.waiting
    written = [write.rpartition("/")[2] for write in kube.writes[before:]]
    controller, proxies = fleet.controller_secret, fleet.proxy_secret
    assert written == [controller, proxies, controller, controller, proxies], "trust, leaf, switch, then drop"
    after = await load_keys(kube, fleet, lambda: NOW)
    for files in (after.controller.files, after.proxies.files):
        assert files.identity.certificate.issuer == second.certificate.subject
        assert files.bundle.fingerprints == {second.certificate.fingerprint}
    assert not await is_behind(rotation, after)
