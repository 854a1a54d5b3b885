"""cert-manager as the issuer: leaves are asked for, checked and adopted, and what is wrong with one is named."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from konverge.errors import Invalid, NotFound, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import CERTIFICATES, PROXY_FLEETS, SECRETS
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.fleet import Identity as IdentitySpec
from konverge.model.fleet import Issuer as IssuerSpec
from konverge.operate.certmanager import CertManagerIssuer, build_certificate
from konverge.operate.fleets import parse_fleet
from konverge.operate.identities import (
    ensure_identity,
    load_keys,
    open_issuer,
    owner_of,
    request_for_controller,
    request_for_proxies,
)
from konverge.pki.authority import Authority
from konverge.pki.keys import KeyType
from tests.integration.pki.cert_manager import CertManager


async def make_fleet(kube: KubeClient, namespace: str, **identity: object) -> Fleet:
    issuer = IssuerSpec(kind="cert-manager", name="house", issuer_kind="ClusterIssuer")
    spec = FleetSpec(proxy_service="s", identity=IdentitySpec(issuer=issuer, **identity))  # type: ignore[arg-type]
    body = {
        "apiVersion": PROXY_FLEETS.api_version,
        "kind": "ProxyFleet",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": spec.to_json(),
    }
    return parse_fleet(await kube.create(PROXY_FLEETS, body))


@pytest.fixture
async def fleet(kube: KubeClient, namespace: str) -> Fleet:
    return await make_fleet(kube, namespace)


async def test_a_fleet_gets_its_identities_from_cert_manager(
    kube: KubeClient, namespace: str, manager: CertManager, fleet: Fleet
) -> None:
    keys = await ensure_identity(kube, fleet)
    assert not keys.owns_authority
    assert sorted(manager.signed) == ["shop-controller-issued", "shop-gateway-issued"]
    for kept, purpose in ((keys.controller, "clientAuth"), (keys.proxies, "serverAuth")):
        leaf = kept.files.identity.certificate
        assert (leaf.issuer, leaf.purposes) == (manager.authority.certificate.subject, (purpose,))
        assert kept.files.bundle.fingerprints == {manager.authority.certificate.fingerprint}
    assert keys.proxies.files.identity.certificate.covers(f"gw-1.{fleet.admin_service}.{namespace}.svc")
    with pytest.raises(Invalid) as caught:
        _ = keys.authorities
    assert caught.value.reason == "AuthorityNotOurs"
    for name in manager.signed:
        secret = await kube.get(SECRETS, name, namespace)
        assert secret["metadata"]["ownerReferences"][0]["uid"] == fleet.uid
        assert secret["metadata"]["labels"]["konverge.dev/fleet"] == "shop"
    before = len(manager.signed)
    await ensure_identity(kube, fleet)
    assert len(manager.signed) == before


async def test_issue_orders_another_leaf_and_a_renewal_is_offered(
    kube: KubeClient, manager: CertManager, fleet: Fleet
) -> None:
    await ensure_identity(kube, fleet)
    issuer = await open_issuer(kube, fleet)
    assert not issuer.owns_authority
    for request in (request_for_controller(fleet), request_for_proxies(fleet)):
        first = await issuer.offer(request)
        assert first is not None
        second = await issuer.issue(request)
        assert second.certificate.serial != first.certificate.serial
        assert second.key != first.key
        assert await offered(issuer, request) == second.certificate.serial
        await manager.renew_all()
        assert await offered(issuer, request) not in (first.certificate.serial, second.certificate.serial)
    keys = await load_keys(kube, fleet)
    assert keys.controller.files.identity.certificate.serial != await offered(issuer, request_for_controller(fleet))


async def offered(issuer: object, request: object) -> str:
    found = await issuer.offer(request)  # type: ignore[attr-defined]
    assert found is not None
    return str(found.certificate.serial)


async def test_another_authority_shows_in_the_trust(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    await ensure_identity(kube, fleet)
    old, manager.authority = manager.authority, Authority.create("next", datetime.now(UTC))
    issuer = await open_issuer(kube, fleet)
    await issuer.issue(request_for_proxies(fleet))
    both = {old.certificate.fingerprint, manager.authority.certificate.fingerprint}
    assert (await issuer.trust()).fingerprints == both
    await issuer.issue(request_for_controller(fleet))
    assert (await issuer.trust()).fingerprints == {manager.authority.certificate.fingerprint}


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_each_key_type_is_asked_for_and_comes(
    kube: KubeClient, namespace: str, manager: CertManager, key_type: KeyType
) -> None:
    fleet = await make_fleet(kube, namespace, key_type=key_type.value)
    leaf = await (await open_issuer(kube, fleet)).issue(request_for_controller(fleet))
    algorithm = {KeyType.ECDSA: "ECDSA", KeyType.ED25519: "Ed25519", KeyType.RSA: "RSA"}[key_type]
    written = await kube.get(CERTIFICATES, "shop-controller-issued", namespace)
    assert written["spec"]["privateKey"]["algorithm"] == algorithm
    asked = build_certificate(fleet, request_for_controller(fleet), owner_of(fleet))
    assert written["spec"] == asked["spec"], "no field is unknown to the schema"
    assert type(leaf.key.signer).__name__.lower().startswith({"ECDSA": "ec"}.get(algorithm, algorithm.lower()))


async def test_what_does_not_come_says_what_cert_manager_says(
    kube: KubeClient, manager: CertManager, fleet: Fleet
) -> None:
    manager.refuses = "Referenced Issuer not found: house"
    issuer = CertManagerIssuer(kube, fleet, owner_of(fleet), timeout=1.5)
    with pytest.raises(Unavailable, match="Referenced Issuer not found") as caught:
        await issuer.issue(request_for_controller(fleet))
    assert caught.value.reason == "IssuerSlow"
    manager.refuses, manager.purposes = "", ("clientAuth", "serverAuth")
    await manager.renew_all()
    with pytest.raises(Unavailable, match="it has to be for clientAuth alone"):
        await issuer.issue(request_for_controller(fleet))


async def test_without_cert_manager_it_is_said(kube: KubeClient, namespace: str) -> None:
    fleet = await make_fleet(kube, namespace)
    issuer = CertManagerIssuer(_Without(kube), fleet, None)  # type: ignore[arg-type]
    with pytest.raises(NotFound) as caught:
        await issuer.issue(request_for_controller(fleet))
    assert caught.value.reason == "CertManagerMissing"


class _Without:
    """A cluster that does not serve the kind."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def apply(self, *_: object) -> object:
        raise NotFound("the server could not find the requested resource")

    def __getattr__(self, name: str) -> object:
        return getattr(self._kube, name)


async def test_waiting_can_be_cancelled(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    manager.refuses = f"not today {uuid.uuid4()}"
    task = asyncio.create_task((await open_issuer(kube, fleet)).issue(request_for_controller(fleet)))
    async with asyncio.timeout(30), aclosing(kube.watch(CERTIFICATES, fleet.namespace)) as events:  # type: ignore[type-var]
        await anext(events)  # the Certificate has been written
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
