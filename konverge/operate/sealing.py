"""Looks after the key store of a fleet: what is kept where and under which key; rewraps, moves to the other store.

Every verb is level-triggered: it looks, does what is missing, and can be cut off and repeated at any moment.
"""

from __future__ import annotations

from typing import Literal

from konverge.errors import (
    CheckRefused,
    Conflict,
    FinalError,
    Forbidden,
    KonvergeError,
    NotFound,
    UsageError,
    VerificationFailed,
)
from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_FLEETS, SEALED_IDENTITIES
from konverge.model.base import Value
from konverge.model.fleet import Fleet
from konverge.operate.fleets import load_fleet
from konverge.operate.identities import open_store, owns_authority
from konverge.pki.keystore import SecretStore, StoredFiles
from konverge.pki.sealing.routing import RoutedStore
from konverge.pki.sealing.store import SealedStore

TRIES = 5
"""How often a name is done again because somebody else wrote in between."""
COPIED = "konverge.dev/copied-from"
"""Annotation of a copy: the resourceVersion of what it was copied from."""
HINT = "howto/sealed-keys.md#moving-between-stores"
StoreKind = Literal["secret", "sealed"]


class KeptView(Value):
    """One set of identity files as it is shown to people: where it is, under which key, and what is wrong."""

    name: str
    place: str
    key_id: str = ""
    """The key encryption key; "" for a Secret, which has none."""
    current: bool = True
    """Whether it is sealed under the key in force, or needs no key."""
    moved: bool = True
    """Whether it is where the fleet says."""
    problem: str = ""


def sealed_names(fleet: Fleet) -> tuple[str, ...]:
    """Return the names that a sealed store keeps: all that no proxy mounts."""
    return (*([fleet.authority_secret] if owns_authority(fleet) else []), fleet.controller_secret)


async def list_kept(kube: KubeClient, fleet: Fleet) -> list[KeptView]:
    """Show what is kept where; a set that does not open is a problem of that set, not a failure of the verb."""
    store = open_store(kube, fleet)
    views = [await _view_secret(store, name) for name in (*sealed_names(fleet), fleet.proxy_secret)]
    views += [await _view_sealed(store, name) for name in sealed_names(fleet)]
    return [view for view in views if view is not None]


async def rewrap_keys(kube: KubeClient, fleet: Fleet) -> list[str]:
    """Wrap every data key of a fleet under the key in force and return the objects that were changed.

    Until the last one is done the old key has to be there too. One that fails does not hold up the others.
    """
    store = open_store(kube, fleet).sealed
    changed, failures = [], []
    for name in sealed_names(fleet):
        try:
            if await _rewrap(store, name):
                changed.append(store.locate(name))
        except KonvergeError as error:
            failures.append(error)
    if failures:
        raise failures[0] if len(failures) == 1 else _join(failures)
    return changed


async def migrate_store(kube: KubeClient, fleet: Fleet, kind: StoreKind) -> list[KeptView]:
    """Move what is kept to the other store without a moment in which it is nowhere.

    Copy and read back; tell the fleet; delete the source at the version that was copied, else copy again. A
    reader with either state of the fleet finds what it needs, and a writer with the old one gets Conflict.
    """
    done = fleet.spec.identity.store.kind == kind
    store = open_store(kube, _as_moved(fleet, kind))
    if kind == "sealed":
        await _refuse_unusable(kube, fleet, store)
    copies = {name: await _copy(store, name, overwrite=not done) for name in sealed_names(fleet)}
    if not done:
        patch = {"spec": {"identity": {"store": {"kind": kind}}}}
        await kube.patch(PROXY_FLEETS, fleet.name, patch, fleet.namespace)
    for name, copy in copies.items():
        await _clear(store, name, copy)
    return await list_kept(kube, await load_fleet(kube, fleet.name, fleet.namespace))


async def _rewrap(store: SealedStore, name: str) -> bool:
    for _ in range(TRIES - 1):
        try:
            return await store.rewrap(name)
        except Conflict:
            continue
    return await store.rewrap(name)


async def _copy(store: RoutedStore, name: str, *, overwrite: bool) -> StoredFiles | None:
    """Copy a set to where it belongs and read it back; None where there is nothing to copy."""
    home, source = store.home(name), await store.elsewhere(name).load(name)
    if source is None:
        return None
    held = await home.load(name)
    if held is not None and not overwrite:
        return None
    note = {COPIED: source.version}
    written = await home.store(name, source.files, version=held.version if held else "", annotations=note)
    read = await home.load(name)
    if read is None or read.files != source.files:
        raise VerificationFailed(
            f"{home.locate(name)} does not read back as it was written; nothing was deleted",
            reason="CopyDiffers",
            hint=HINT,
        )
    return written


async def _clear(store: RoutedStore, name: str, copy: StoredFiles | None) -> None:
    """Delete the source of a copy, after copying again what was written there since."""
    source_store, home = store.elsewhere(name), store.home(name)
    for _ in range(TRIES):
        source, held = await source_store.load(name), await home.load(name)
        if source is None or held is None:
            return
        if held.annotations.get(COPIED) != source.version and held.files != source.files:
            if copy is None or held.version != copy.version:
                raise _differ(source_store.locate(name), home.locate(name))
            copy = await _copy(store, name, overwrite=True)
            continue
        try:
            await source_store.delete(name, version=source.version)
        except Conflict:
            continue
        return
    raise Conflict(f"{source_store.locate(name)} keeps changing; is a rotation under way?", reason="Conflict")


async def _refuse_unusable(kube: KubeClient, fleet: Fleet, store: RoutedStore) -> None:
    """Refuse before anything is touched where the kind is not served or the key cannot be used from here."""
    try:
        await kube.list_all(SEALED_IDENTITIES, fleet.namespace)
    except NotFound:
        raise CheckRefused(
            "The API server does not know SealedIdentity; install the CRDs first:"
            " konverge crds | kubectl apply --server-side -f -",
            reason="CrdsMissing",
            hint="reference/errors.md#crds-missing",
        ) from None
    await store.sealed.keys.current()


async def _view_secret(store: RoutedStore, name: str) -> KeptView | None:
    if not await store.secrets.exists(name):
        return None
    return KeptView(name=name, place=store.secrets.locate(name), moved=isinstance(store.home(name), SecretStore))


async def _view_sealed(store: RoutedStore, name: str) -> KeptView | None:
    sealed = store.sealed
    try:
        body = await sealed.read(name)
    except Forbidden:
        if store.seals:
            raise
        return None
    if body is None:
        return None
    key_id, current, problem = "", False, ""
    try:
        key_id = sealed.parse(body).key_id
        await sealed.load(name)
        current = key_id == await sealed.keys.current()
    except FinalError as error:
        problem = error.message
    return KeptView(
        name=name,
        place=sealed.locate(name),
        key_id=key_id,
        current=current,
        moved=store.seals,
        problem=problem,
    )


def _as_moved(fleet: Fleet, kind: StoreKind) -> Fleet:
    """Return the fleet as it will be; UsageError where its spec does not say which key to seal with."""
    if kind == "sealed" and not fleet.spec.identity.store.key_name:
        raise UsageError(
            f"ProxyFleet {fleet.namespace}/{fleet.name}: spec.identity.store has no keyName; set keySource and"
            " keyName first, then move",
            reason="NoKeySource",
            hint=HINT,
        )
    store = fleet.spec.identity.store.replace(kind=kind)
    return fleet.replace(spec=fleet.spec.replace(identity=fleet.spec.identity.replace(store=store)))


def _differ(source: str, home: str) -> VerificationFailed:
    return VerificationFailed(
        f"{source} and {home} were both written since the one was copied to the other; nothing was deleted",
        reason="StoresDiffer",
        hint=HINT,
    )


def _join(failures: list[KonvergeError]) -> VerificationFailed:
    first = failures[0]
    return VerificationFailed("; ".join(f.message for f in failures), reason=first.reason, hint=first.hint)
