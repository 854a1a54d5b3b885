"""The identities of a fleet: its authority, the controller's client certificate, the proxies' server certificate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from konverge.errors import Conflict, Invalid, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object
from konverge.model.fleet import Fleet
from konverge.operate.certmanager import CertManagerIssuer, issued_names
from konverge.operate.clock import Clock, utc_now
from konverge.pki.authority import Authority, Identity, LeafRequest, request_controller, request_proxies
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.files import (
    CERTIFICATE_FILE,
    CONTROLLER_BUNDLE_FILE,
    KEY_FILE,
    PROXY_BUNDLE_FILE,
    IdentityFiles,
    assemble_files,
    read_files,
)
from konverge.pki.issuing import BuiltInIssuer, GivenIssuer, Issuer
from konverge.pki.keystore import KeyStore, SecretStore, StoredFiles
from konverge.pki.sealing.keyring import open_environment, open_file
from konverge.pki.sealing.routing import RoutedStore
from konverge.pki.sealing.store import SealedStore
from konverge.pki.sealing.wrapping import KeyEncryption
from konverge.pki.vault import VaultTransit, read_settings

NEXT_CERTIFICATE = "next.crt"
NEXT_KEY = "next.key"
"""Files of the authority's Secret that exist only while one authority is being replaced by the next."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An identity as it is stored, and the version that a write must name."""

    files: IdentityFiles
    version: str


@dataclass(frozen=True, slots=True)
class Authorities:
    """The authority in force and, during a rotation, its successor."""

    current: Authority
    successor: Authority | None
    version: str

    @property
    def issuer(self) -> Authority:
        """The one that new leaves come from."""
        return self.successor or self.current


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """Everything that is stored for a fleet; no part of it shows a key in its repr.

    ``own`` is the fleet's own authority; None where somebody else signs.
    """

    own: Authorities | None
    controller: Kept
    proxies: Kept

    @property
    def owns_authority(self) -> bool:
        """Whether the fleet signs its certificates itself; else a rotation follows its issuer."""
        return self.own is not None

    @property
    def authorities(self) -> Authorities:
        """The fleet's own authority; Invalid where it has none."""
        if self.own is None:
            raise Invalid(
                "The certificates of this fleet are signed by an issuer that is not ours: its authority cannot be"
                " rotated from here",
                reason="AuthorityNotOurs",
                hint="reference/errors.md#authority-not-ours",
            )
        return self.own


def owns_authority(fleet: Fleet) -> bool:
    """Tell whether a fleet signs its certificates itself."""
    return fleet.spec.identity.issuer.kind == "built-in"


def open_store(kube: KubeClient, fleet: Fleet) -> RoutedStore:
    """Return the key store of a fleet, in its namespace and owned by the fleet.

    What proxies mount is a Secret always; the authority and the controller's identity are where
    ``spec.identity.store`` says.
    """
    owner = owner_of(fleet)
    return RoutedStore(
        SecretStore(kube, fleet.namespace, labels={"konverge.dev/fleet": fleet.name}, owner=owner),
        SealedStore(kube, fleet.namespace, fleet.name, open_keys(fleet), owner=owner),
        seals=fleet.spec.identity.store.kind == "sealed",
        mounted=(fleet.proxy_secret,),
    )


def open_keys(fleet: Fleet) -> KeyEncryption:
    """Return the key encryption key of a fleet's sealed store; nothing is read before it is used."""
    store = fleet.spec.identity.store
    match store.key_source:
        case "file":
            return open_file(store.key_name)
        case "environment":
            return open_environment(store.key_name)
        case "vault":
            place = {"mount": store.vault_mount, "role": store.vault_role, "auth": store.vault_auth}
            return VaultTransit(read_settings(store.vault_address, store.key_name, **place))


def owner_of(fleet: Fleet) -> Object | None:
    """Return the ownerReference with which objects go when the fleet goes; None for a fleet that is not stored."""
    if not fleet.uid:
        return None
    return {"apiVersion": "konverge.dev/v1alpha1", "kind": "ProxyFleet", "name": fleet.name, "uid": fleet.uid}


async def open_issuer(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> Issuer:
    """Return the issuer that ``spec.identity.issuer`` names; the fleet's own needs its stored authority."""
    match fleet.spec.identity.issuer.kind:
        case "cert-manager":
            return CertManagerIssuer(kube, fleet, owner_of(fleet), clock)
        case "secret":
            return GivenIssuer(SecretStore(kube, fleet.namespace), issued_names(fleet), clock)
        case "built-in":
            stored = await _require(open_store(kube, fleet), fleet, fleet.authority_secret)
            own = read_authorities(stored)
            return BuiltInIssuer(
                own.current,
                own.successor,
                clock,
                lifetime=_leaf_lifetime(fleet),
                key_type=fleet.spec.identity.key_type,
            )


async def ensure_identity(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> FleetKeys:
    """Create what is missing of a fleet's identities and return all of them; what exists is never replaced."""
    store, now = open_store(kube, fleet), clock()
    if not owns_authority(fleet):
        await _ensure_adopted(await open_issuer(kube, fleet, clock), store, fleet, now)
        return await load_keys(kube, fleet, clock)
    authorities = await _ensure_authority(store, fleet, now)
    trust = build_bundle(authorities.current.identity.chain[:1], now)
    await asyncio.gather(
        _ensure_leaf(store, fleet.controller_secret, issue_controller(fleet, authorities.current, trust, now)),
        _ensure_leaf(store, fleet.proxy_secret, issue_proxies(fleet, authorities.current, trust, now)),
    )
    return await load_keys(kube, fleet, clock)


async def load_keys(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> FleetKeys:
    """Read all identities of a fleet; NotFound or Invalid name the object that is missing or broken."""
    store, now = open_store(kube, fleet), clock()
    own = owns_authority(fleet)
    names = (*([fleet.authority_secret] if own else []), fleet.controller_secret, fleet.proxy_secret)
    found = await asyncio.gather(*(store.load(name) for name in names))
    # Checked in this order, so that the same object is named each time.
    *authority, controller, proxies = (
        _found(fleet, store, name, stored) for name, stored in zip(names, found, strict=True)
    )
    return FleetKeys(
        read_authorities(authority[0]) if authority else None,
        _read_kept(controller, CONTROLLER_BUNDLE_FILE, now),
        _read_kept(proxies, PROXY_BUNDLE_FILE, now),
    )


async def load_controller(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> IdentityFiles:
    """Read the controller's identity and the bundle that it verifies proxies with."""
    stored = await _require(open_store(kube, fleet), fleet, fleet.controller_secret)
    return _read_kept(stored, CONTROLLER_BUNDLE_FILE, clock()).files


def request_for_controller(fleet: Fleet) -> LeafRequest:
    """Return what the client certificate of a fleet's controller has to say."""
    return request_controller(fleet.name)


def request_for_proxies(fleet: Fleet) -> LeafRequest:
    """Return what the server certificate of a fleet's proxies has to say."""
    return request_proxies(fleet.admin_service, fleet.namespace)


def issue_controller(fleet: Fleet, authority: Authority, trust: TrustBundle, now: datetime) -> IdentityFiles:
    """Issue the controller's client certificate."""
    request = request_for_controller(fleet)
    leaf = authority.issue(request, now, lifetime=_leaf_lifetime(fleet), key_type=fleet.spec.identity.key_type)
    return assemble_files(leaf, trust, now, CONTROLLER_BUNDLE_FILE)


def issue_proxies(fleet: Fleet, authority: Authority, trust: TrustBundle, now: datetime) -> IdentityFiles:
    """Issue the server certificate that all proxies of the fleet mount."""
    request = request_for_proxies(fleet)
    leaf = authority.issue(request, now, lifetime=_leaf_lifetime(fleet), key_type=fleet.spec.identity.key_type)
    return assemble_files(leaf, trust, now, PROXY_BUNDLE_FILE)


def create_authority(fleet: Fleet, now: datetime) -> Authority:
    """Create a new generation of the fleet's authority."""
    identity = fleet.spec.identity
    return Authority.create(
        fleet.name, now, lifetime=timedelta(hours=identity.authority_hours), key_type=identity.key_type
    )


def read_authorities(stored: StoredFiles) -> Authorities:
    """Read the authority as it is stored; Invalid names the object and the file that is missing or broken."""
    files, what = stored.files, stored.place or stored.name
    for name in (CERTIFICATE_FILE, KEY_FILE, *([NEXT_KEY] if files.get(NEXT_CERTIFICATE) else [])):
        if not files.get(name):
            raise Invalid(
                f"{what}: {name} is missing", reason="IncompleteIdentity", hint="reference/errors.md#identity-missing"
            )
    current = Identity.from_pem(files[CERTIFICATE_FILE], files[KEY_FILE], what)
    successor = None
    if files.get(NEXT_CERTIFICATE):
        successor = Authority(Identity.from_pem(files[NEXT_CERTIFICATE], files[NEXT_KEY], f"{what} (next)"))
    return Authorities(Authority(current), successor, stored.version)


def authority_files(authorities: Authorities) -> dict[str, bytes]:
    """Return the content of the authority's Secret."""
    files = {
        CERTIFICATE_FILE: authorities.current.pem,
        KEY_FILE: authorities.current.identity.key.to_pem(),
    }
    if authorities.successor is not None:
        files[NEXT_CERTIFICATE] = authorities.successor.pem
        files[NEXT_KEY] = authorities.successor.identity.key.to_pem()
    return files


def with_bundle(files: IdentityFiles, bundle: TrustBundle, now: datetime) -> IdentityFiles:
    """Return the files with another bundle, checked again."""
    return assemble_files(files.identity, bundle, now, files.bundle_file)


async def _ensure_authority(store: KeyStore, fleet: Fleet, now: datetime) -> Authorities:
    stored = await store.load(fleet.authority_secret)
    if stored is None:
        fresh = Authorities(create_authority(fleet, now), None, "")
        try:
            stored = await store.store(fleet.authority_secret, authority_files(fresh))
        except Conflict:
            stored = await _require(store, fleet, fleet.authority_secret)
    return read_authorities(stored)


async def _ensure_adopted(issuer: Issuer, store: KeyStore, fleet: Fleet, now: datetime) -> None:
    """Take over what an issuer that is not ours signed, for the roles that have nothing yet."""
    roles = (
        (fleet.controller_secret, request_for_controller(fleet), CONTROLLER_BUNDLE_FILE),
        (fleet.proxy_secret, request_for_proxies(fleet), PROXY_BUNDLE_FILE),
    )
    stored = await asyncio.gather(*(store.load(name) for name, _, _ in roles))
    if all(stored):
        return
    # Both leaves have to be there before the trust is known.
    leaves = await asyncio.gather(*(adopt(issuer, request) for _, request, _ in roles))
    trust = await issuer.trust()
    for (name, _, bundle_file), leaf, found in zip(roles, leaves, stored, strict=True):
        if found is None:
            await _ensure_leaf(store, name, assemble_files(leaf, trust, now, bundle_file))


async def adopt(issuer: Issuer, request: LeafRequest) -> Identity:
    """Return the leaf that lies ready at an issuer, else a new one."""
    return await issuer.offer(request) or await issuer.issue(request)


async def _ensure_leaf(store: KeyStore, name: str, files: IdentityFiles) -> None:
    if await store.load(name) is None:
        try:
            await store.store(name, files.data)
        except Conflict:
            return  # another run was faster; both issue from the same authority


async def _require(store: KeyStore, fleet: Fleet, name: str) -> StoredFiles:
    return _found(fleet, store, name, await store.load(name))


def _found(fleet: Fleet, store: KeyStore, name: str, stored: StoredFiles | None) -> StoredFiles:
    if stored is None:
        raise NotFound(
            f"Fleet {fleet.namespace}/{fleet.name} has no identity: {store.locate(name)} does not exist",
            reason="IdentityMissing",
            hint="reference/errors.md#identity-missing",
        )
    return stored


def _read_kept(stored: StoredFiles, bundle_file: str, now: datetime) -> Kept:
    return Kept(read_files(stored.files, now, bundle_file, stored.place or stored.name), stored.version)


def _leaf_lifetime(fleet: Fleet) -> timedelta:
    return timedelta(hours=fleet.spec.identity.leaf_hours)
