"""Stores configurations as ConfigRevision objects: numbered, hashed, compressed, owned.

The bytes lie in Secrets because a configuration holds credentials and private keys. An object must stay under
about 1 MiB, so they are compressed and cut; the Secrets are written before the ConfigRevision, which makes a
half-written revision invisible. What became of a revision is in its status.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from pydantic import ValidationError

from konverge.errors import Conflict, KonvergeError, NotFound, VerificationFailed
from konverge.kong.declarative import describe_change
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, PROXY_FLEETS, SECRETS, Object
from konverge.model.counters import Counters
from konverge.model.fleet import Fleet
from konverge.model.revision import (
    Revision,
    RevisionOutcome,
    RevisionRecord,
    RevisionSpec,
    RevisionStatus,
    revision_name,
)
from konverge.operate.clock import Clock, utc_now

log = logging.getLogger(__name__)

CHUNK = 700_000
"""Bytes per Secret before base64; etcd's default limit for an object is 1.5 MiB, the API server's for data 1 MiB."""
LEVEL = 2
"""Of gzip: 6 saves a fifth of the room and costs two and a half times the time, while a change waits for it."""
MEMBER = 1 << 20
"""Bytes that are compressed by one thread: zlib lets go of the interpreter, so all cores do."""
CHUNK_TYPE = "konverge.dev/revision"
"""Type of the Secrets that hold the bytes."""
MESSAGE_LIMIT = 1024
"""Characters of a reason or message that are stored."""


async def record_verdict(
    kube: KubeClient,
    fleet: Fleet,
    number: int,
    outcome: RevisionOutcome,
    reason: str = "",
    message: str = "",
    *,
    clock: Clock = utc_now,
) -> RevisionStatus | None:
    """Write what became of a revision on the proxies; nothing is written where it is known already.

    A revision that is Good or Harmful is not made Superseded or Pending: replacing it says nothing about it. Good
    marks older ones that nobody judged as Superseded. Returns None where the revision is gone.
    """
    status = await _write_verdict(kube, fleet, number, outcome, reason, message, clock)
    if status is not None and outcome is RevisionOutcome.GOOD:
        for record in await list_records(kube, fleet):
            if record.number < number and record.status.outcome is RevisionOutcome.PENDING:
                text = f"revision {number} took its place"
                superseded = RevisionOutcome.SUPERSEDED
                await _write_verdict(kube, fleet, record.number, superseded, "Superseded", text, clock)
    return status


_JUDGED = (RevisionOutcome.GOOD, RevisionOutcome.HARMFUL)


async def _write_verdict(
    kube: KubeClient,
    fleet: Fleet,
    number: int,
    outcome: RevisionOutcome,
    reason: str,
    message: str,
    clock: Clock,
) -> RevisionStatus | None:
    fresh = {"outcome": outcome, "reason": reason, "message": message[:MESSAGE_LIMIT]}

    def judge(before: RevisionStatus) -> RevisionStatus:
        known = before.since is not None and all(getattr(before, field) == value for field, value in fresh.items())
        if known or (before.outcome in _JUDGED and outcome not in _JUDGED):
            return before
        now = clock()
        since = before.since if before.outcome is outcome and before.since else now
        good = now if outcome is RevisionOutcome.GOOD else before.last_good
        return before.model_copy(update={**fresh, "since": since, "last_good": good})

    return await _change_status(kube, fleet, number, judge)


async def record_baseline(kube: KubeClient, fleet: Fleet, number: int, baseline: Counters) -> None:
    """Write the traffic that a roll-out of a revision judges by, before the first proxy gets it."""
    await _change_status(kube, fleet, number, lambda before: before.model_copy(update={"baseline": baseline}))


async def _change_status(
    kube: KubeClient, fleet: Fleet, number: int, change: Callable[[RevisionStatus], RevisionStatus]
) -> RevisionStatus | None:
    """Write a changed status and return it; None where the revision is gone."""
    name = revision_name(fleet.name, number)
    while True:
        body = await kube.find(CONFIG_REVISIONS, name, fleet.namespace)
        if body is None:
            return None
        before = RevisionStatus.model_validate(body.get("status") or {})
        status = change(before)
        if status == before:
            return before
        try:
            await kube.replace(CONFIG_REVISIONS, {**body, "status": status.to_json()}, "status")
            return status
        except Conflict:
            continue
        except NotFound:
            return None


async def list_records(kube: KubeClient, fleet: Fleet) -> list[RevisionRecord]:
    """Read the revisions of a fleet with what became of them, newest first; one that cannot be read is left out."""
    items = await kube.list_all(CONFIG_REVISIONS, fleet.namespace, labels=f"konverge.dev/fleet={fleet.name}")
    records = []
    for item in items:
        try:
            records.append(
                RevisionRecord.model_validate({"spec": item.get("spec"), "status": item.get("status") or {}})
            )
        except ValidationError:
            log.warning("ConfigRevision %s/%s cannot be read", fleet.namespace, item["metadata"]["name"])
    return sorted(records, key=lambda record: record.number, reverse=True)


async def list_revisions(kube: KubeClient, fleet: Fleet) -> list[RevisionSpec]:
    """Read the revisions of a fleet, newest first."""
    return [record.spec for record in await list_records(kube, fleet)]


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
    try:
        spec = RevisionSpec.model_validate(body.get("spec"))
    except ValidationError:
        raise _damaged(fleet, name, "its spec cannot be read") from None
    revision = Revision(
        number=number,
        content=await _read_chunks(kube, fleet, spec),
        marker=spec.marker,
        routes=spec.routes,
        services=spec.services,
    )
    if revision.hash != spec.hash:
        raise _damaged(fleet, name, f"its bytes have hash {revision.hash}, recorded is {spec.hash}")
    return revision


async def store_revision(
    kube: KubeClient,
    fleet: Fleet,
    draft: Revision,
    *,
    author: str = "",
    reason: str = "",
    sources: Mapping[str, str] | None = None,
    previous: Revision | None = None,
    clock: Clock = utc_now,
    later: Callable[[Coroutine[Any, Any, None]], object] | None = None,
) -> Revision:
    """Store a configuration under the next number; the newest revision is returned where it is the same.

    ``author`` is who made it, ``reason`` why: left empty, it names the objects that changed since the newest
    revision, whose bytes are read unless ``previous`` has them. ``sources`` are the newest resourceVersions by kind.
    ``later`` takes the work that nobody has to wait for, owners and the removal of what is old; without it that is
    done here. Of two writers one gets the number; the other looks again, so that equal bytes never get two numbers
    in a row.
    """
    taken = 0
    packing = asyncio.ensure_future(_pack(draft.content))
    while True:
        try:
            known = await list_records(kube, fleet)
        finally:
            pieces = await packing
        newest = known[0].spec if known else None
        if newest and newest.hash == draft.hash:
            return _numbered(draft, newest.number)
        revision = _numbered(draft, max(taken, newest.number if newest else 0) + 1)
        why = reason or await _explain(kube, fleet, newest, previous, draft)
        spec = _describe(fleet, revision, author, why, sources or {}, clock)
        spec = spec.model_copy(update={"chunks": len(pieces)})
        try:
            created = await _write_revision(kube, fleet, spec, pieces)
        except Conflict as conflict:
            if conflict.reason != "AlreadyExists":
                raise
            taken = revision.number
            continue
        tidying = _tidy(kube, fleet, created, [RevisionRecord(spec=spec), *known])
        if later is not None:
            later(tidying)
        else:
            await tidying
        return revision


async def _pack(content: bytes) -> list[bytes]:
    """Compress, off the loop and in pieces side by side, and cut; RFC 1952 lets a file be several such members."""
    ranges = [slice(start, start + MEMBER) for start in range(0, len(content), MEMBER)] or [slice(0, 0)]
    work = (asyncio.to_thread(gzip.compress, content[piece], LEVEL, mtime=0) for piece in ranges)
    packed = b"".join(await asyncio.gather(*work))
    return [packed[start : start + CHUNK] for start in range(0, len(packed), CHUNK)]


async def _tidy(kube: KubeClient, fleet: Fleet, created: Object, known: list[RevisionRecord]) -> None:
    """Have the bytes go with their revision, and remove what is old."""
    await _own_chunks(kube, fleet, created, known[0].spec)
    await _prune(kube, fleet, known)


def read_versions(sources: Iterable[Object]) -> dict[str, str]:
    """Return the newest resourceVersion of each kind among objects; versions are numbers (KEP-5504)."""
    newest: dict[str, str] = {}
    for body in sources:
        kind, version = str(body.get("kind", "")), str(body["metadata"].get("resourceVersion", ""))
        if version.isdigit() and int(version) > int(newest.get(kind, "-1")):
            newest[kind] = version
    return newest


async def _explain(
    kube: KubeClient, fleet: Fleet, newest: RevisionSpec | None, previous: Revision | None, draft: Revision
) -> str:
    """Say what changed since the newest revision; "" where that cannot be told, which never holds up a change."""
    try:
        if newest is not None and (previous is None or previous.hash != newest.hash):
            previous = await load_revision(kube, fleet, newest.number)
        before = previous.content if newest is not None and previous is not None else None
        return await asyncio.to_thread(_compare, before, draft.content)
    except (KonvergeError, orjson.JSONDecodeError, TypeError, AttributeError):
        return ""


def _compare(before: bytes | None, after: bytes) -> str:
    return describe_change(None if before is None else orjson.loads(before), orjson.loads(after))


def _numbered(draft: Revision, number: int) -> Revision:
    return replace(draft, number=number)


def _describe(
    fleet: Fleet, revision: Revision, author: str, reason: str, sources: Mapping[str, str], clock: Clock
) -> RevisionSpec:
    return RevisionSpec(
        fleet=fleet.name,
        number=revision.number,
        hash=revision.hash,
        marker=revision.marker,
        size=len(revision.content),
        routes=revision.routes,
        services=revision.services,
        author=author,
        reason=reason[:MESSAGE_LIMIT],
        sources=dict(sources),
        created=clock(),
    )


async def _write_revision(kube: KubeClient, fleet: Fleet, spec: RevisionSpec, pieces: Sequence[bytes]) -> Object:
    """Write the bytes, then the ConfigRevision, and return it; Conflict where the number is taken."""
    await asyncio.gather(*(_write_chunk(kube, fleet, spec, index, data) for index, data in enumerate(pieces)))
    return await kube.create(CONFIG_REVISIONS, _envelope(fleet, revision_name(fleet.name, spec.number), spec))


async def _own_chunks(kube: KubeClient, fleet: Fleet, created: Object, spec: RevisionSpec) -> None:
    owner = _owner(CONFIG_REVISIONS.api_version, CONFIG_REVISIONS.kind, created)
    patch = {"metadata": {"ownerReferences": [owner]}}
    names = [_chunk_name(spec, index) for index in range(spec.chunks)]
    await asyncio.gather(*(kube.patch(SECRETS, name, patch, fleet.namespace) for name in names))


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
    body: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": CHUNK_TYPE,
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
            raise
        # The name carries the hash: a left-over of a killed run, perhaps of a release that cut in another way.
        await kube.patch(SECRETS, body["metadata"]["name"], {"data": body["data"]}, fleet.namespace)


async def _read_chunks(kube: KubeClient, fleet: Fleet, spec: RevisionSpec) -> bytes:
    names = [_chunk_name(spec, index) for index in range(spec.chunks)]
    try:
        secrets = await asyncio.gather(*(kube.get(SECRETS, name, fleet.namespace) for name in names))
        return gzip.decompress(b"".join(base64.b64decode(secret["data"]["content"]) for secret in secrets))
    except (NotFound, KeyError, ValueError, OSError, EOFError, zlib.error) as error:
        cause = error.message if isinstance(error, NotFound) else f"{type(error).__name__} in Secret {names[0]}"
        raise _damaged(fleet, revision_name(fleet.name, spec.number), f"its bytes cannot be read: {cause}") from error


def _damaged(fleet: Fleet, name: str, what: str) -> VerificationFailed:
    return VerificationFailed(
        f"ConfigRevision {fleet.namespace}/{name}: {what}",
        reason="RevisionDamaged",
        hint="reference/errors.md#revision-damaged",
    )


async def _prune(kube: KubeClient, fleet: Fleet, known: list[RevisionRecord]) -> None:
    """Delete old revisions, and the bytes that belong to none: what a killed or beaten writer left behind."""
    old: list[RevisionRecord] = []
    if len(known) > fleet.spec.history_limit:
        kept = await _find_kept(kube, fleet, known)
        old = [record for record in known[fleet.spec.history_limit :] if record.number not in kept]
    for record in old:
        await kube.delete(CONFIG_REVISIONS, revision_name(fleet.name, record.number), fleet.namespace)
    wanted = {_chunk_name(r.spec, i) for r in known if r not in old for i in range(r.spec.chunks)}
    labels = f"konverge.dev/fleet={fleet.name},konverge.dev/revision"
    secrets = await kube.list_all(
        SECRETS, fleet.namespace, labels=labels, fields=f"type={CHUNK_TYPE}", metadata_only=True
    )
    for secret in secrets:
        metadata = secret["metadata"]
        # A higher number is another writer at work: its ConfigRevision is about to come.
        if metadata["name"] not in wanted and int(metadata["labels"]["konverge.dev/revision"]) <= known[0].number:
            await kube.delete(SECRETS, metadata["name"], fleet.namespace)


async def _find_kept(kube: KubeClient, fleet: Fleet, known: list[RevisionRecord]) -> set[int]:
    """Return the revisions that stay whatever their age: in force, good, pinned; as given and as it is by now.

    The caller may have read the fleet before somebody pinned a revision.
    """
    body = await kube.find(PROXY_FLEETS, fleet.name, fleet.namespace) or {}
    status, spec = body.get("status") or {}, body.get("spec") or {}
    good = (record.number for record in known if record.status.outcome is RevisionOutcome.GOOD)
    return {
        fleet.status.current_revision,
        fleet.status.last_good_revision,
        fleet.spec.pinned_revision,
        int(status.get("currentRevision") or 0),
        int(status.get("lastGoodRevision") or 0),
        int(spec.get("pinnedRevision") or 0),
        next(good, 0),
    }
