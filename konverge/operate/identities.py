"""The identities of a fleet: its authority, the controller's client certificate, the proxies' server certificate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from konverge.errors import Conflict, NotFound
from konverge.kube.client import KubeClient
from konverge.model.fleet import Fleet
from konverge.operate.clock import Clock, utc_now
from konverge.pki.authority import Authority, Identity, request_controller, request_proxies
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
from konverge.pki.keystore import KeyStore, SecretStore, StoredFiles

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
    """Everything that is stored for a fleet; no part of it shows a key in its repr."""

    authorities: Authorities
    controller: Kept
    proxies: Kept


def open_store(kube: KubeClient, fleet: Fleet) -> KeyStore:
    """Return the key store of a fleet: Secrets in its namespace, owned by the fleet."""
    owner = {
        "apiVersion": "konverge.dev/v1alpha1",
        "kind": "ProxyFleet",
        "name": fleet.name,
        "uid": fleet.uid,
    }
    return SecretStore(
        kube, fleet.namespace, labels={"konverge.dev/fleet": fleet.name}, owner=owner if fleet.uid else None
    )


async def ensure_identity(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> FleetKeys:
    """Create what is missing of a fleet's identities and return all of them; what exists is never replaced."""
    store, now = open_store(kube, fleet), clock()
    authorities = await _ensure_authority(store, fleet, now)
    trust = build_bundle(authorities.current.identity.chain[:1], now)
    await asyncio.gather(
        _ensure_leaf(store, fleet.controller_secret, issue_controller(fleet, authorities.current, trust, now)),
        _ensure_leaf(store, fleet.proxy_secret, issue_proxies(fleet, authorities.current, trust, now)),
    )
    return await load_keys(kube, fleet, clock)


async def load_keys(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> FleetKeys:
    """Read all identities of a fleet; NotFound or Invalid name the Secret that is missing or broken."""
    store, now = open_store(kube, fleet), clock()
    names = (fleet.authority_secret, fleet.controller_secret, fleet.proxy_secret)
    found = await asyncio.gather(*(store.load(name) for name in names))
    # Checked in this order, so that the same Secret is named each time.
    authority, controller, proxies = (_found(fleet, name, stored) for name, stored in zip(names, found, strict=True))
    return FleetKeys(
        read_authorities(authority),
        _read_kept(controller, CONTROLLER_BUNDLE_FILE, now),
        _read_kept(proxies, PROXY_BUNDLE_FILE, now),
    )


async def load_controller(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> IdentityFiles:
    """Read the controller's identity and the bundle that it verifies proxies with."""
    stored = await _require(open_store(kube, fleet), fleet, fleet.controller_secret)
    return _read_kept(stored, CONTROLLER_BUNDLE_FILE, clock()).files


def issue_controller(fleet: Fleet, authority: Authority, trust: TrustBundle, now: datetime) -> IdentityFiles:
    """Issue the controller's client certificate."""
    leaf = authority.issue(
        request_controller(fleet.name), now, lifetime=_leaf_lifetime(fleet), key_type=fleet.spec.identity.key_type
    )
    return assemble_files(leaf, trust, now, CONTROLLER_BUNDLE_FILE)


def issue_proxies(fleet: Fleet, authority: Authority, trust: TrustBundle, now: datetime) -> IdentityFiles:
    """Issue the server certificate that all proxies of the fleet mount."""
    request = request_proxies(fleet.admin_service, fleet.namespace)
    leaf = authority.issue(request, now, lifetime=_leaf_lifetime(fleet), key_type=fleet.spec.identity.key_type)
    return assemble_files(leaf, trust, now, PROXY_BUNDLE_FILE)


def create_authority(fleet: Fleet, now: datetime) -> Authority:
    """Create a new generation of the fleet's authority."""
    identity = fleet.spec.identity
    return Authority.create(
        fleet.name, now, lifetime=timedelta(hours=identity.authority_hours), key_type=identity.key_type
    )


def read_authorities(stored: StoredFiles) -> Authorities:
    """Read the authority's Secret."""
    files = stored.files
    current = Identity.from_pem(files[CERTIFICATE_FILE], files[KEY_FILE], stored.name)
    successor = None
    if files.get(NEXT_CERTIFICATE):
        successor = Authority(Identity.from_pem(files[NEXT_CERTIFICATE], files[NEXT_KEY], f"{stored.name} (next)"))
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


async def _ensure_leaf(store: KeyStore, name: str, files: IdentityFiles) -> None:
    if await store.load(name) is None:
        try:
            await store.store(name, files.data)
        except Conflict:
            return  # another run was faster; both issue from the same authority


async def _require(store: KeyStore, fleet: Fleet, name: str) -> StoredFiles:
    return _found(fleet, name, await store.load(name))


def _found(fleet: Fleet, name: str, stored: StoredFiles | None) -> StoredFiles:
    if stored is None:
        raise NotFound(
            f"Fleet {fleet.namespace}/{fleet.name} has no identity: Secret {name} does not exist",
            reason="IdentityMissing",
            hint="reference/errors.md#identity-missing",
        )
    return stored


def _read_kept(stored: StoredFiles, bundle_file: str, now: datetime) -> Kept:
    return Kept(read_files(stored.files, now, bundle_file, f"Secret {stored.name}"), stored.version)


def _leaf_lifetime(fleet: Fleet) -> timedelta:
    return timedelta(hours=fleet.spec.identity.leaf_hours)
