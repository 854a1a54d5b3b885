"""The issuer ``cert-manager`` against the real controllers of cert-manager, on a real API server.

What runs is tools/kube_certmanager: the published packages of cert-manager, with the CRDs of the same version, built
by ``python tools/kube_assets.py --cert-manager`` and looked up in the cache. Where it is not there, all is skipped.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kube_building
import orjson
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from konverge.errors import Conflict, Invalid, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.crds import build_crds
from konverge.kube.resources import CERTIFICATE_REQUESTS, CERTIFICATES, CRDS, PODS, PROXY_FLEETS, SECRETS, Object
from konverge.kube.streaming import ExecResult
from konverge.lab.pod import die_with_parent
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.fleet import Identity as IdentitySpec
from konverge.model.fleet import Issuer as IssuerSpec
from konverge.model.proxy import Proxy
from konverge.operate import reloading, rotating
from konverge.operate.certmanager import CertManagerIssuer, build_certificate
from konverge.operate.connecting import GatewayPool
from konverge.operate.fleets import parse_fleet
from konverge.operate.following import follow_issuer, is_behind
from konverge.operate.identities import (
    ensure_identity,
    load_keys,
    open_issuer,
    owner_of,
    request_for_controller,
    request_for_proxies,
    with_bundle,
)
from konverge.operate.proving import prove_entry, prove_serial, prove_trust
from konverge.operate.rotating import Rotation
from konverge.pki.authority import name_server
from konverge.pki.files import IdentityFiles
from konverge.pki.inspecting import CLOCK_SKEW, Certificate, describe, parse_pem
from konverge.pki.issuing import Issuer
from konverge.pki.keys import KeyType
from tests.e2e.town import Town, open_town

from .objects import CLUSTER_ISSUERS, ISSUERS, SERVICE_ACCOUNTS, build_pod, build_running_status
from .planes import Plane
from .waiting import wait_for

pytestmark = pytest.mark.kube
CLUSTER_NAMESPACE = "kube-system"
"""Where ClusterIssuers find their Secrets; cert-manager's own default."""
AUTHORITY = "house-ca"
PROXY = "gw-1"
KINDS = {
    KeyType.ECDSA: ec.EllipticCurvePrivateKey,
    KeyType.ED25519: ed25519.Ed25519PrivateKey,
    KeyType.RSA: rsa.RSAPrivateKey,
}


@pytest.fixture(scope="module")
def cert_manager(plane: Plane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the real controllers for the tests of this file."""
    place = kube_building.locate_cert_manager()
    if not place.is_dir():
        pytest.skip(f"no real cert-manager: {place} missing (python tools/kube_assets.py --cert-manager)")
    definitions = list(yaml.safe_load_all((place / kube_building.CERT_MANAGER_CRDS).read_text()))
    asyncio.run(install(plane, [*definitions, *build_crds()]))
    log = tmp_path_factory.mktemp("cert-manager") / "log"
    command = [str(place / kube_building.CERT_MANAGER), f"--kubeconfig={plane.kubeconfig}"]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, preexec_fn=die_with_parent) as process,
    ):
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(60)


async def install(plane: Plane, definitions: list[Object]) -> None:
    names = {body["metadata"]["name"] for body in definitions}
    async with await KubeClient.connect(plane.kubeconfig) as client:
        for body in definitions:
            await client.apply(CRDS, body)
        await wait_for(
            client, CRDS, "", lambda found: names <= {o["metadata"]["name"] for o in found if established(o)}
        )


def established(body: Object) -> bool:
    return read_condition(body, "Established").get("status") == "True"


def read_condition(body: Object, kind: str) -> Object:
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition["type"] == kind), {})


@pytest.fixture
async def house(cert_manager: None, client: KubeClient, namespace: str) -> House:
    """A namespace with an authority that cert-manager made itself, and an Issuer that signs with it."""
    made = House(client, namespace)
    await made.found()
    await made.open("house")
    return made


class House:
    """An authority in a namespace, and the Issuers that sign with it."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    async def found(self, name: str = "first house") -> None:
        """Ask for an authority of this name, and wait until it is there."""
        root = {"metadata": {"name": "root", "namespace": self.namespace}, "spec": {"selfSigned": {}}}
        await self.client.apply(ISSUERS, {"apiVersion": ISSUERS.api_version, "kind": "Issuer", **root})
        spec = {
            "isCA": True,
            "commonName": name,
            "secretName": AUTHORITY,
            "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
            "issuerRef": {"name": "root", "kind": "Issuer", "group": "cert-manager.io"},
        }
        metadata = {"name": AUTHORITY, "namespace": self.namespace}
        body = {"apiVersion": CERTIFICATES.api_version, "kind": "Certificate", "metadata": metadata, "spec": spec}
        await self.client.apply(CERTIFICATES, body)
        await wait_for(self.client, SECRETS, self.namespace, lambda found: any(is_named(s, name) for s in found))

    async def renew(self, name: str) -> None:
        """Order another leaf for a Certificate, as ``cmctl renew`` does, and wait until it is written."""
        before = (await self.client.get(CERTIFICATES, name, self.namespace))["status"]["revision"]
        while True:
            body = await self.client.get(CERTIFICATES, name, self.namespace)
            order = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "renew"}
            kept = [c for c in body["status"]["conditions"] if c["type"] != "Issuing"]
            body["status"]["conditions"] = [*kept, {**order, "lastTransitionTime": f"{datetime.now(UTC):%FT%TZ}"}]
            with suppress(Conflict):
                await self.client.replace(CERTIFICATES, body, subresource="status")
                break
        await wait_for(
            self.client, CERTIFICATES, self.namespace, lambda found: any(is_past(c, name, before) for c in found)
        )

    async def open(self, name: str, secret: str = AUTHORITY, ready: str = "True") -> None:
        """Write an Issuer and wait for what cert-manager says of it."""
        body = {"metadata": {"name": name, "namespace": self.namespace}, "spec": {"ca": {"secretName": secret}}}
        await self.client.apply(ISSUERS, {"apiVersion": ISSUERS.api_version, "kind": "Issuer", **body})
        await wait_for(
            self.client,
            ISSUERS,
            self.namespace,
            lambda found: any(
                i["metadata"]["name"] == name and read_condition(i, "Ready").get("status") == ready for i in found
            ),
        )

    async def authority(self) -> Certificate:
        return read_leaf(await self.client.get(SECRETS, AUTHORITY, self.namespace))

    async def find_pending(self) -> Object:
        """Wait for a request that waits for its Issuer."""
        kind = CERTIFICATE_REQUESTS
        found = await wait_for(self.client, kind, self.namespace, lambda requests: any(map(is_pending, requests)))
        return next(request for request in found if is_pending(request))

    async def refuse(self, fleet: Fleet) -> Unavailable:
        """Ask for a leaf that cannot come, and return what is said once cert-manager has seen that."""
        request, owner = request_for_controller(fleet), owner_of(fleet)
        asking = asyncio.create_task(CertManagerIssuer(self.client, fleet, owner).issue(request))
        await self.find_pending()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        with pytest.raises(Unavailable) as caught:
            await CertManagerIssuer(self.client, fleet, owner, timeout=1).issue(request)
        return caught.value

    async def fleet(self, issuer: str = "house", kind: str = "Issuer", **identity: Any) -> Fleet:
        named = IssuerSpec(kind="cert-manager", name=issuer, issuer_kind=kind)  # type: ignore[arg-type]
        spec = FleetSpec(proxy_service="s", identity=IdentitySpec(issuer=named, **identity))
        metadata = {"generateName": "shop-", "namespace": self.namespace}
        body = {"apiVersion": PROXY_FLEETS.api_version, "kind": "ProxyFleet", "metadata": metadata}
        return parse_fleet(await self.client.create(PROXY_FLEETS, {**body, "spec": spec.to_json()}))


def is_named(secret: Object, name: str) -> bool:
    if secret["metadata"]["name"] != AUTHORITY or not (secret.get("data") or {}).get("tls.crt"):
        return False
    return f"CN={name}" in read_leaf(secret).subject


def is_past(certificate: Object, name: str, revision: int) -> bool:
    if certificate["metadata"]["name"] != name:
        return False
    renewed = certificate["status"].get("revision", 0) > revision
    return renewed and read_condition(certificate, "Issuing").get("status") != "True"


def read_leaf(secret: Object) -> Certificate:
    return describe(parse_pem(base64.b64decode(secret["data"]["tls.crt"]), "tls.crt")[0])


async def read_offer(issuer: Issuer, fleet: Fleet) -> list[Certificate]:
    offers = [await issuer.offer(request(fleet)) for request in (request_for_controller, request_for_proxies)]
    return [offer.certificate for offer in offers if offer is not None]


async def test_leaves_are_what_kong_and_our_client_need(house: House) -> None:
    client, fleet = house.client, await house.fleet()
    keys = await ensure_identity(client, fleet)
    authority = await house.authority()
    controller, proxies = keys.controller.files, keys.proxies.files
    for files, purpose in ((controller, "clientAuth"), (proxies, "serverAuth")):
        leaf = files.identity.certificate
        assert (leaf.issuer, leaf.purposes, leaf.authority) == (authority.subject, (purpose,), False)
        assert files.bundle.fingerprints == {authority.fingerprint}
        assert len(files.identity.chain) == 1
        lifetime = leaf.not_after - leaf.not_before
        assert round(lifetime.total_seconds() / 3600) == fleet.spec.identity.leaf_hours
    base = f"{fleet.admin_service}.{house.namespace}.svc"
    assert all(proxies.identity.certificate.covers(name) for name in (base, f"{PROXY}.{base}"))
    for request in (request_for_controller(fleet), request_for_proxies(fleet)):
        asked = build_certificate(fleet, request, owner_of(fleet))
        written = await client.get(CERTIFICATES, asked["metadata"]["name"], house.namespace)
        assert written["spec"] == asked["spec"], "no field is unknown to the schema, and none is filled in"


async def test_secrets_stay_owned_and_labelled_over_a_renewal(house: House) -> None:
    client, fleet = house.client, await house.fleet()
    await ensure_identity(client, fleet)
    names = {fleet.issued_controller_secret, fleet.issued_proxy_secret}
    for name in names:
        await house.renew(name)
        metadata = (await client.get(SECRETS, name, house.namespace))["metadata"]
        assert [owner["uid"] for owner in metadata["ownerReferences"]] == [fleet.uid]
        assert metadata["labels"]["konverge.dev/fleet"] == fleet.name


async def test_a_leaf_is_ordered_and_one_that_was_renewed_is_offered(house: House) -> None:
    client, fleet = house.client, await house.fleet()
    await ensure_identity(client, fleet)
    issuer = await open_issuer(client, fleet)
    first = await read_offer(issuer, fleet)
    ordered = [await issuer.issue(request(fleet)) for request in (request_for_controller, request_for_proxies)]
    second = [identity.certificate for identity in ordered]
    assert await read_offer(issuer, fleet) == second
    for name in (fleet.issued_controller_secret, fleet.issued_proxy_secret):
        await house.renew(name)
    third = await read_offer(issuer, fleet)
    for generations in zip(first, second, third, strict=True):
        assert len({leaf.serial for leaf in generations}) == 3
        assert len({leaf.key_fingerprint for leaf in generations}) == 3
    keys = await load_keys(client, fleet)
    assert [keys.controller.files.identity.certificate, keys.proxies.files.identity.certificate] == first


async def test_a_leaf_that_begins_later_by_our_clock_is_waited_for(house: House) -> None:
    """cert-manager backdates no leaf."""

    def behind() -> datetime:
        return datetime.now(UTC) - timedelta(seconds=3)

    client, fleet = house.client, await house.fleet()
    leaf = await CertManagerIssuer(client, fleet, owner_of(fleet), behind).issue(request_for_controller(fleet))
    assert leaf.certificate.not_before <= behind()


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_each_key_type_comes(house: House, key_type: KeyType) -> None:
    fleet = await house.fleet(key_type=key_type.value)
    leaf = await (await open_issuer(house.client, fleet)).issue(request_for_proxies(fleet))
    assert isinstance(leaf.key.signer, KINDS[key_type])


async def test_a_cluster_issuer_signs_as_well(cert_manager: None, client: KubeClient, namespace: str) -> None:
    house = House(client, namespace)
    await house.found()
    secret = await client.get(SECRETS, AUTHORITY, namespace)
    metadata = {"generateName": "house-ca-", "namespace": CLUSTER_NAMESPACE}
    copy = await client.create(SECRETS, {"metadata": metadata, "type": secret["type"], "data": secret["data"]})
    name = copy["metadata"]["name"]
    try:
        spec = {"ca": {"secretName": name}}
        body = {"apiVersion": CLUSTER_ISSUERS.api_version, "kind": "ClusterIssuer", "metadata": {"name": name}}
        await client.create(CLUSTER_ISSUERS, {**body, "spec": spec})
        keys = await ensure_identity(client, await house.fleet(name, "ClusterIssuer"))
        assert keys.proxies.files.bundle.fingerprints == {(await house.authority()).fingerprint}
    finally:
        await client.delete(CLUSTER_ISSUERS, name)
        await client.delete(SECRETS, name, CLUSTER_NAMESPACE)


async def test_an_issuer_that_is_missing_is_named(house: House) -> None:
    fleet = await house.fleet("nobody")
    error = await house.refuse(fleet)
    assert (error.reason, error.hint) == ("IssuerSlow", "howto/issuers.md#cert-manager")
    assert f"{house.namespace}/{fleet.issued_controller_secret}" in error.message
    assert 'Referenced "Issuer" not found' in error.message
    assert '"nobody" not found' in error.message


async def test_an_issuer_that_is_not_ready_is_told_and_served_once_it_is(house: House) -> None:
    await house.open("empty", secret="nothing", ready="False")
    fleet = await house.fleet("empty")
    error = await house.refuse(fleet)
    assert error.reason == "IssuerSlow"
    assert "issuer does not have a Ready status" in error.message
    await house.open("empty")
    leaf = await CertManagerIssuer(house.client, fleet, owner_of(fleet)).issue(request_for_controller(fleet))
    assert leaf.certificate.issuer == (await house.authority()).subject


async def test_a_request_that_failed_is_told_and_the_next_order_does_not_wait_an_hour(house: House) -> None:
    """cert-manager backs off for an hour at least after a failure; who orders has mended what was wrong."""
    client, fleet = house.client, await house.fleet("later")
    asking = asyncio.create_task((await open_issuer(client, fleet)).issue(request_for_controller(fleet)))
    await fail(client, await house.find_pending())
    kind = CERTIFICATES
    found = await wait_for(client, kind, house.namespace, lambda certificates: any(map(has_failed, certificates)))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    told = next(read_condition(certificate, "Issuing") for certificate in found if has_failed(certificate))
    assert "the vault is sealed" in told["message"], "the Certificate repeats what has failed for good"
    await house.open("later")
    leaf = await CertManagerIssuer(client, fleet, owner_of(fleet)).issue(request_for_controller(fleet))
    assert leaf.certificate.issuer == (await house.authority()).subject


def is_pending(request: Object) -> bool:
    return read_condition(request, "Ready").get("reason") == "Pending"


def has_failed(certificate: Object) -> bool:
    status = certificate.get("status") or {}
    return "lastFailureTime" in status and read_condition(certificate, "Issuing").get("status") == "False"


async def fail(client: KubeClient, request: Object) -> None:
    """Say what an external issuer says where it cannot sign."""
    now = f"{datetime.now(UTC):%FT%TZ}"
    ready = {"type": "Ready", "status": "False", "reason": "Failed", "message": "the vault is sealed"}
    kept = [c for c in request["status"]["conditions"] if c["type"] != "Ready"]
    request["status"] |= {"conditions": [*kept, {**ready, "lastTransitionTime": now}], "failureTime": now}
    await client.replace(CERTIFICATE_REQUESTS, request, subresource="status")


class Line:
    """A fleet of one proxy in this process; its Pod stands on the API server, for nobody to run."""

    def __init__(self, house: House, fleet: Fleet, town: Town) -> None:
        self.house = house
        self.fleet = fleet
        self.town = town
        self.reloads = 0

    async def proxies(self, *_: Any) -> list[Proxy]:
        name = name_server(PROXY, self.fleet.admin_service, self.house.namespace)
        return [self.town.proxy.model_copy(update={"namespace": self.house.namespace, "server_name": name})]

    async def exec(self, _kube: Any, _pod: str, _ns: str, _container: str, command: list[str]) -> ExecResult:
        """The kubelet projects the Secret at once; a reload is what ``kong reload`` does to the node."""
        secret = await self.house.client.get(SECRETS, self.fleet.proxy_secret, self.house.namespace)
        for name, value in secret["data"].items():
            (self.town.directory / name).write_bytes(base64.b64decode(value))
        if command[0] == "cat":
            shown = [(self.town.directory / path.rpartition("/")[2]).read_bytes() for path in command[1:]]
            return ExecResult(0, b"".join(shown), b"")
        assert self.town.node is not None
        self.reloads += 1
        self.town.node.hang_up()
        return ExecResult(0, b"Kong reloaded", b"")

    async def then_all_agree(self) -> None:
        """What is stored is what the proxy runs with, and of the authority that cert-manager signs with."""
        authority, keys = await self.house.authority(), await load_keys(self.house.client, self.fleet)
        controller, proxies = keys.controller.files, keys.proxies.files
        for files in (controller, proxies):
            assert files.bundle.fingerprints == {authority.fingerprint}
        serial = proxies.identity.certificate.serial
        (proxy,) = await self.proxies()
        for proof in (
            prove_serial(controller, serial),
            prove_entry(controller),
            prove_trust(proxies.bundle, exactly=True),
        ):
            assert (await proof(proxy)).fault == ""

    async def renew_leaves(self) -> None:
        for name in (self.fleet.issued_controller_secret, self.fleet.issued_proxy_secret):
            await self.house.renew(name)

    async def lets_in(self, files: IdentityFiles) -> bool:
        """Tell whether the proxy lets a client certificate of before in; whom that client trusts does not matter."""
        now = datetime.now(UTC)
        trusted = (await load_keys(self.house.client, self.fleet)).controller.files.bundle
        (proxy,) = await self.proxies()
        return (await prove_entry(with_bundle(files, files.bundle.overlap(trusted, now), now))(proxy)).holds

    async def configure(self) -> None:
        """Without a configuration a proxy calls itself not ready."""
        content = orjson.dumps({"_format_version": "3.0", "services": [{"name": "a", "host": "a.test"}]})
        files = (await load_keys(self.house.client, self.fleet)).controller.files
        async with GatewayPool(self.fleet, files) as pool:
            for proxy in await self.proxies():
                await pool.reach(proxy).push(content)


@pytest.fixture
async def line(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    client, fleet = house.client, await house.fleet()
    keys = await ensure_identity(client, fleet)
    pod = build_pod(PROXY, house.namespace, "")
    pod["spec"] = {"containers": pod["spec"]["containers"]}
    await wait_for(client, SERVICE_ACCOUNTS, house.namespace, bool)
    await client.create(PODS, pod)
    await client.patch(PODS, PROXY, build_running_status("10.244.9.9"), house.namespace, subresource="status")
    async with open_town(tmp_path, lambda _: keys.proxies.files) as town:
        made = Line(house, fleet, town)
        monkeypatch.setattr(rotating, "discover_proxies", made.proxies)
        monkeypatch.setattr(reloading.streaming, "exec", made.exec)
        await made.configure()
        await made.then_all_agree()
        yield made


async def test_a_rotation_orders_new_leaves_and_brings_them_into_force(line: Line) -> None:
    client, fleet = line.house.client, line.fleet
    calm = Rotation(client, fleet)
    before = await load_keys(client, fleet)
    assert not await is_behind(calm, before)
    # cert-manager backdates no leaf, so one of the last five minutes counts as made for the rotation: begin later.
    rotation = Rotation(client, fleet, since=datetime.now(UTC) + 2 * CLOCK_SKEW)
    report = await follow_issuer(rotation)
    assert not report.waiting
    after = await load_keys(client, fleet)
    for old, new in ((before.controller, after.controller), (before.proxies, after.proxies)):
        assert new.files.identity.certificate.serial != old.files.identity.certificate.serial
        assert new.files.bundle.fingerprints == old.files.bundle.fingerprints
    await line.then_all_agree()
    assert line.reloads == 1
    assert not await is_behind(calm, after)


async def test_another_authority_in_the_secret_of_the_issuer_is_followed(line: Line) -> None:
    client, fleet, house = line.house.client, line.fleet, line.house
    old, before = await house.authority(), (await load_keys(client, fleet)).controller.files
    await house.found("second house")
    assert not await is_behind(Rotation(client, fleet), await load_keys(client, fleet)), "no leaf is of it yet"
    await line.renew_leaves()
    assert await is_behind(Rotation(client, fleet), await load_keys(client, fleet))
    report = await follow_issuer(Rotation(client, fleet))
    assert not report.waiting
    assert line.reloads == 2, "first to trust both, then to drop the former"
    assert (await house.authority()).subject != old.subject
    await line.then_all_agree()
    assert not await line.lets_in(before)


async def test_a_successor_of_the_same_name_is_refused_and_one_of_another_name_followed(line: Line) -> None:
    """cert-manager renews an authority under its name with another key; nobody could see which of them is trusted."""
    client, fleet, house = line.house.client, line.fleet, line.house
    old, before = await house.authority(), await load_keys(client, fleet)
    await house.renew(AUTHORITY)
    await line.renew_leaves()
    renewed = await house.authority()
    assert (renewed.subject, renewed.key_fingerprint == old.key_fingerprint) == (old.subject, False)
    with pytest.raises(
        Invalid, match=r"Issuer .* cannot be taken up: .*has the subject of another authority with another key"
    ):
        await follow_issuer(Rotation(client, fleet))
    assert await load_keys(client, fleet) == before
    assert await line.lets_in(before.controller.files)
    await house.found("second house")
    await line.renew_leaves()
    report = await follow_issuer(Rotation(client, fleet))
    assert not report.waiting
    await line.then_all_agree()
    assert not await line.lets_in(before.controller.files)
