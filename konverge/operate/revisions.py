"""Stores configurations as ConfigRevision objects: numbered, hashed, compressed, owned.

The bytes lie in Secrets because a configuration holds credentials and private keys. An object must stay under
about 1 MiB, so they are compressed and cut; the Secrets are written before the ConfigRevision, which makes a
half-written revision invisible.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import zlib
from dataclasses import replace

from konverge.errors import Conflict, NotFound, VerificationFailed
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, SECRETS, Object
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision, RevisionSpec, revision_name
from konverge.operate.clock import Clock, utc_now

CHUNK = 700_000
"""Bytes per Secret before base64; etcd's default limit for an object is 1.5 MiB, the API server's for data 1 MiB."""
HISTORY_LIMIT = 10
"""Revisions that are kept; the current and the last good one always are."""


async def list_revisions(kube: KubeClient, fleet: Fleet) -> list[RevisionSpec]:
    """Read the revisions of a fleet, newest first."""
    items = await kube.list_all(CONFIG_REVISIONS, fleet.namespace, labels=f"konverge.dev/fleet={fleet.name}")
    specs = [RevisionSpec.model_validate(item["spec"]) for item in items]
    return sorted(specs, key=lambda spec: spec.number, reverse=True)


async def load_revision(kube: KubeClient, fleet: Fleet, number: int) -> Revision:
    """Read a revision with its bytes; VerificationFailed where they do not have the recorded hash."""
    name = revision_name(fleet.name, number)
    try:
        body = await kube.get(CONFIG_REVISIONS, name, fleet.namespace)
    except NotFound:
        known = ", ".join(str(spec.number) for spec in await list_revisions(kube, fleet)) or "none"
        raise NotFound(
            f"Fleet {fleet.namespace}/{fleet.name} has no revision {number}; it has: {known}",
            reason="RevisionNotFound",
            hint="reference/errors.md#revision-not-found",
        ) from None
    spec = RevisionSpec.model_validate(body["spec"])
    revision = Revision(
        number=number,
        content=await _read_chunks(kube, fleet, spec),
        marker=spec.marker,
        routes=spec.routes,
        services=spec.services,
    )
    if revision.hash != spec.hash:
        raise _damaged(fleet, spec, f"its bytes have hash {revision.hash}, recorded is {spec.hash}")
    return revision


async def store_revision(
    kube: KubeClient, fleet: Fleet, draft: Revision, *, author: str = "", clock: Clock = utc_now
) -> Revision:
    """Store a configuration under the next number; the newest revision is returned where it is the same.

    Of two writers one gets the number; the other looks again, so that equal bytes never get two numbers in a row.
    """
    taken = 0
    while True:
        known = await list_revisions(kube, fleet)
        if known and known[0].hash == draft.hash:
            return _numbered(draft, known[0].number)
        revision = _numbered(draft, max(taken, known[0].number if known else 0) + 1)
        try:
            spec = await _write_revision(kube, fleet, revision, author, clock)
        except Conflict as conflict:
            if conflict.reason != "AlreadyExists":
                raise
            taken = revision.number
            continue
        await _prune(kube, fleet, [spec, *known])
        return revision


def _numbered(draft: Revision, number: int) -> Revision:
    return replace(draft, number=number)


async def _write_revision(
    kube: KubeClient, fleet: Fleet, revision: Revision, author: str, clock: Clock
) -> RevisionSpec:
    packed = gzip.compress(revision.content, compresslevel=6, mtime=0)
    chunks = [packed[start : start + CHUNK] for start in range(0, len(packed), CHUNK)]
    spec = RevisionSpec(
        fleet=fleet.name,
        number=revision.number,
        hash=revision.hash,
        marker=revision.marker,
        size=len(revision.content),
        chunks=len(chunks),
        routes=revision.routes,
        services=revision.services,
        author=author,
        created=clock(),
    )
    await asyncio.gather(*(_write_chunk(kube, fleet, spec, i, data) for i, data in enumerate(chunks)))
    name = revision_name(fleet.name, revision.number)
    created = await kube.create(CONFIG_REVISIONS, _envelope(fleet, name, spec))
    owner = _owner(CONFIG_REVISIONS.api_version, CONFIG_REVISIONS.kind, created)
    patch = {"metadata": {"ownerReferences": [owner]}}
    await asyncio.gather(
        *(kube.patch(SECRETS, _chunk_name(spec, i), patch, fleet.namespace) for i in range(len(chunks)))
    )
    return spec


def _envelope(fleet: Fleet, name: str, spec: RevisionSpec) -> Object:
    metadata: Object = {
        "name": name,
        "namespace": fleet.namespace,
        "labels": {"konverge.dev/fleet": fleet.name},
    }
    if fleet.uid:
        owner = {"metadata": {"name": fleet.name, "uid": fleet.uid}}
        metadata["ownerReferences"] = [_owner("konverge.dev/v1alpha1", "ProxyFleet", owner)]
    return {
        "apiVersion": CONFIG_REVISIONS.api_version,
        "kind": CONFIG_REVISIONS.kind,
        "metadata": metadata,
        "spec": spec.to_json(),
    }


def _owner(api_version: str, kind: str, body: Object) -> Object:
    metadata = body["metadata"]
    return {"apiVersion": api_version, "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}


def _chunk_name(spec: RevisionSpec, index: int) -> str:
    return f"{revision_name(spec.fleet, spec.number)}-{spec.hash[:8]}-{index}"


async def _write_chunk(kube: KubeClient, fleet: Fleet, spec: RevisionSpec, index: int, data: bytes) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "konverge.dev/revision",
        "metadata": {
            "name": _chunk_name(spec, index),
            "namespace": fleet.namespace,
            "labels": {"konverge.dev/fleet": fleet.name, "konverge.dev/revision": str(spec.number)},
        },
        "data": {"content": base64.b64encode(data).decode()},
    }
    try:
        await kube.create(SECRETS, body)
    except Conflict as conflict:
        if conflict.reason != "AlreadyExists":
            raise  # the name carries the hash: an existing chunk is a left-over of a killed run, and equal


async def _read_chunks(kube: KubeClient, fleet: Fleet, spec: RevisionSpec) -> bytes:
    names = [_chunk_name(spec, index) for index in range(spec.chunks)]
    try:
        secrets = await asyncio.gather(*(kube.get(SECRETS, name, fleet.namespace) for name in names))
        return gzip.decompress(b"".join(base64.b64decode(secret["data"]["content"]) for secret in secrets))
    except (NotFound, KeyError, ValueError, OSError, EOFError, zlib.error) as error:
        cause = error.message if isinstance(error, NotFound) else f"{type(error).__name__} in Secret {names[0]}"
        raise _damaged(fleet, spec, f"its bytes cannot be read: {cause}") from error


def _damaged(fleet: Fleet, spec: RevisionSpec, what: str) -> VerificationFailed:
    return VerificationFailed(
        f"ConfigRevision {fleet.namespace}/{revision_name(fleet.name, spec.number)}: {what}",
        reason="RevisionDamaged",
        hint="reference/errors.md#revision-damaged",
    )


async def _prune(kube: KubeClient, fleet: Fleet, known: list[RevisionSpec]) -> None:
    """Delete old revisions, and the bytes that belong to none: what a killed or beaten writer left behind."""
    status = fleet.status
    kept = {known[0].number, status.current_revision, status.last_good_revision}
    old = [spec for spec in known[HISTORY_LIMIT:] if spec.number not in kept]
    for spec in old:
        await kube.delete(CONFIG_REVISIONS, revision_name(fleet.name, spec.number), fleet.namespace)
    wanted = {_chunk_name(spec, i) for spec in known if spec not in old for i in range(spec.chunks)}
    labels = f"konverge.dev/fleet={fleet.name},konverge.dev/revision"
    for secret in await kube.list_all(SECRETS, fleet.namespace, labels=labels):
        metadata = secret["metadata"]
        # A higher number is another writer at work: its ConfigRevision is about to come.
        if metadata["name"] not in wanted and int(metadata["labels"]["konverge.dev/revision"]) <= known[0].number:
            await kube.delete(SECRETS, metadata["name"], fleet.namespace)
