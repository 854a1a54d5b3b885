"""cert-manager does not sign: what is told, what may be missing to tell it, and the order that ends its pause."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from konverge.errors import Forbidden, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import CERTIFICATE_REQUESTS, CERTIFICATES, PROXY_FLEETS, Object, Resource
from konverge.model.fleet import Fleet, FleetSpec, Identity, Issuer
from konverge.operate.certmanager import CertManagerIssuer
from konverge.operate.clock import utc_now
from konverge.operate.fleets import parse_fleet
from konverge.operate.identities import request_for_controller
from tests.integration.pki.cert_manager import CertManager

CONTROLLER = "shop-controller-issued"
PATIENCE = 3.0
"""Seconds in which nothing comes."""


@pytest.fixture
async def fleet(kube: KubeClient, namespace: str) -> Fleet:
    spec = FleetSpec(proxy_service="s", identity=Identity(issuer=Issuer(kind="cert-manager", name="house")))
    body = {"apiVersion": PROXY_FLEETS.api_version, "kind": "ProxyFleet", "spec": spec.to_json()}
    metadata = {"name": "shop", "namespace": namespace}
    return parse_fleet(await kube.create(PROXY_FLEETS, {**body, "metadata": metadata}))


async def test_what_the_request_waits_for_is_told(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    manager.refuses = "Referenced issuer does not have a Ready status condition"
    with pytest.raises(Unavailable) as caught:
        await CertManagerIssuer(kube, fleet, None, timeout=PATIENCE).issue(request_for_controller(fleet))
    told = caught.value.message.partition("cert-manager says: ")[2]
    assert "Issuing True: Issuing certificate as Secret does not exist" in told
    assert told.endswith(f"; {CONTROLLER}-1: Ready False: {manager.refuses}")
    assert (caught.value.reason, caught.value.hint) == ("IssuerSlow", "howto/issuers.md#cert-manager")


async def test_without_the_right_to_read_requests_the_rest_is_told(
    kube: KubeClient, manager: CertManager, fleet: Fleet
) -> None:
    manager.refuses = "not today"
    issuer = CertManagerIssuer(_Blind(kube), fleet, None, timeout=PATIENCE)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match=r"Secret does not exist.*CertificateRequest cannot be read: may not list"):
        await issuer.issue(request_for_controller(fleet))


class _Blind:
    """A client that may not read requests."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def list_all(self, resource: Resource, *rest: str) -> list[Object]:
        if resource == CERTIFICATE_REQUESTS:
            raise Forbidden("may not list")
        return await self._kube.list_all(resource, *rest)

    def __getattr__(self, name: str) -> object:
        return getattr(self._kube, name)


async def test_after_a_failure_the_next_call_orders(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    manager.fails = "the vault is sealed"
    with pytest.raises(Unavailable, match=r"Issuing False: The certificate request has failed.*the vault is sealed"):
        await CertManagerIssuer(kube, fleet, None, timeout=PATIENCE).issue(request_for_controller(fleet))
    status = (await kube.get(CERTIFICATES, CONTROLLER, fleet.namespace))["status"]
    assert status["lastFailureTime"]
    manager.fails = ""
    leaf = await CertManagerIssuer(kube, fleet, None).issue(request_for_controller(fleet))
    assert leaf.certificate.issuer == manager.authority.certificate.subject


async def test_the_first_leaf_is_not_ordered(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    """cert-manager makes it by itself: an order on top would replace it by another at once."""
    counting = _Counting(kube)
    issuer = CertManagerIssuer(counting, fleet, None)  # type: ignore[arg-type]
    await issuer.issue(request_for_controller(fleet))
    assert counting.orders == 0
    await issuer.issue(request_for_controller(fleet))
    assert counting.orders >= 1


async def test_our_clock_may_be_behind(kube: KubeClient, manager: CertManager, fleet: Fleet) -> None:
    """A leaf is good from when it is made on; an order from before the last failure is taken for the failed one."""

    def behind() -> datetime:
        return utc_now() - timedelta(seconds=5)

    manager.fails = "the vault is sealed"
    with pytest.raises(Unavailable, match="the vault is sealed"):
        await CertManagerIssuer(kube, fleet, None, behind, timeout=PATIENCE).issue(request_for_controller(fleet))
    manager.fails = ""
    leaf = await CertManagerIssuer(kube, fleet, None, behind, timeout=60).issue(request_for_controller(fleet))
    assert leaf.certificate.not_before <= behind()


class _Counting:
    """A client that counts what is written into the status of Certificates."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self.orders = 0

    async def replace(self, resource: Resource, body: Object, *, subresource: str) -> Object:
        self.orders += (resource, subresource) == (CERTIFICATES, "status")
        return await self._kube.replace(resource, body, subresource=subresource)

    def __getattr__(self, name: str) -> object:
        return getattr(self._kube, name)
