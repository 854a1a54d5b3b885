"""Remembers which source objects proxies refused, and how those objects looked when they last worked.

In memory while a process lives; beside the fallback revision, in a Secret of its own, for the one that comes after.
The Secret is owned by the ConfigRevision and goes with it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson

from konverge.errors import Conflict
from konverge.kube.client import KubeClient
from konverge.kube.resources import CONFIG_REVISIONS, SECRETS, Object
from konverge.model.fleet import Fleet
from konverge.model.proxy import Blame
from konverge.model.revision import Revision, revision_name
from konverge.translate import FallbackPlan
from konverge.translate.fallback import Graph
from konverge.translate.store import Key

log = logging.getLogger(__name__)

LABEL = "konverge.dev/last-valid"
"""Label of the Secrets, with the number of the fallback revision."""
LARGEST = 700_000
"""Bytes of compressed objects that one Secret holds; base64 and the API server's limit of 1 MiB allow no more."""
TRUSTED = timedelta(hours=1)
"""How long a refusal is believed while the object stays as it is: a new Kong may well take it."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A refused object: which one, what it looked like then, and what was said about it."""

    uid: str
    digest: str
    message: str
    since: datetime


@dataclass(slots=True)
class Memory:
    """What is known of a fleet's sources from one sync to the next; one value per fleet and process."""

    valid: list[Object] | None = field(default=None, repr=False)
    """The sources of the last configuration that proxies took, seen by this process."""
    kept: dict[Key, Object] = field(default_factory=dict, repr=False)
    """Last valid versions of broken objects and of what depends on them."""
    broken: dict[Key, Broken] = field(default_factory=dict)
    unrestorable: set[Key] = field(default_factory=set)
    """Broken objects whose last valid version was refused as well."""
    loaded: bool = False
    stored: set[str] = field(default_factory=set)
    """Names of the Secrets that hold this."""
    _planned: tuple[tuple[Any, ...], Any] | None = field(default=None, repr=False)
    """What the last plan was made from, and the plan."""

    def plan_once(self, snapshot: Mapping[Key, Object], given: tuple[Any, ...], plan: Callable[[], Any]) -> Any:
        """Return what ``plan`` makes of the snapshot, the ``given`` and this memory; called where any of it changed.

        Objects that are the same ones are not compared field by field.
        """
        basis = (snapshot, self.valid, dict(self.broken), dict(self.kept), set(self.unrestorable), *given)
        if self._planned is None or self._planned[0] != basis:
            self._planned = (basis, plan())
        return self._planned[1]

    def presume(self, snapshot: Mapping[Key, Object], now: datetime) -> list[tuple[str, str, str]]:
        """Return the objects that were refused, are still as they were then, and so would be refused again."""
        return [
            key
            for key, broken in self.broken.items()
            if key in snapshot and now - broken.since < TRUSTED and digest_object(snapshot[key]) == broken.digest
        ]

    def blame(self, blamed: Iterable[Blame], snapshot: Mapping[Key, Object], now: datetime) -> bool:
        """Note what was refused; True where anything new was named that is among the sources.

        An object that is blamed again although its last valid version was used has no valid version.
        """
        fresh = False
        for item in blamed:
            key = (item.object.kind, item.object.namespace, item.object.name)
            if key not in snapshot:
                continue
            if key in self.broken and (key not in self.kept or key in self.unrestorable):
                continue
            if key in self.broken:
                self.unrestorable.add(key)
            uid = str(snapshot[key]["metadata"].get("uid", ""))
            self.broken[key] = Broken(uid, digest_object(snapshot[key]), item.message, now)
            fresh = True
        return fresh

    def last_valid(self, snapshot: Mapping[Key, Object], valid: Mapping[Key, Object]) -> dict[Key, Object]:
        """Return the last valid versions of what exists now; what was deleted meanwhile must not come back.

        What depends on an object without a valid version has none either: a route must not lose its plugin.
        """
        known = {**valid, **self.kept}
        graph = Graph(known)
        lost = {dependant for key in self.unrestorable for dependant in (key, *graph.with_dependants(key))}
        return {key: body for key, body in known.items() if key in snapshot and key not in lost}

    def keep(self, plan: FallbackPlan) -> None:
        """Hold on to the versions that a fallback uses."""
        self.kept = {key: plan.snapshot[key] for key in plan.restored}

    def forget(self) -> None:
        """The sources work as they are: nothing is broken any more."""
        self.broken, self.kept, self.unrestorable = {}, {}, set()


def digest_object(body: Object) -> str:
    """Return a digest of what an object asks for; its status and who wrote it do not count."""
    metadata = {k: v for k, v in body["metadata"].items() if k in ("uid", "annotations", "labels")}
    wanted = {k: v for k, v in body.items() if k not in ("metadata", "status")} | {"metadata": metadata}
    return hashlib.sha256(orjson.dumps(wanted, option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()


async def load_memory(kube: KubeClient, fleet: Fleet, memory: Memory) -> None:
    """Read what an earlier process left, once; a Secret that cannot be read counts as absent."""
    if memory.loaded:
        return
    labels = f"konverge.dev/fleet={fleet.name},{LABEL}"
    secrets = await kube.list_all(SECRETS, fleet.namespace, labels=labels)
    memory.stored = {secret["metadata"]["name"] for secret in secrets}
    memory.loaded = True
    for secret in sorted(secrets, key=_number, reverse=True):
        try:
            document = orjson.loads(gzip.decompress(base64.b64decode(secret["data"]["objects"])))
            _read(document, memory)
            return
        except (KeyError, TypeError, ValueError, OSError, EOFError, zlib.error):
            log.warning("Secret %s/%s cannot be read", fleet.namespace, secret["metadata"]["name"])


def _number(secret: Object) -> int:
    number = str(secret["metadata"]["labels"][LABEL])
    return int(number) if number.isdigit() else 0


def _read(document: Any, memory: Memory) -> None:
    kept = {_key(item["key"]): item["object"] for item in document["kept"]}
    broken = {
        _key(item["key"]): Broken(item["uid"], item["digest"], item["message"], datetime.fromisoformat(item["since"]))
        for item in document["broken"]
    }
    memory.kept, memory.broken = kept, broken
    memory.unrestorable = {_key(key) for key in document["unrestorable"]}


def _key(parts: list[str]) -> Key:
    kind, namespace, name = parts
    return (kind, namespace, name)


async def store_memory(kube: KubeClient, fleet: Fleet, memory: Memory, revision: Revision) -> None:
    """Keep the memory with a fallback revision; versions that do not fit in one Secret live in memory only."""
    document = {
        "kept": [{"key": key, "object": body} for key, body in memory.kept.items()],
        "broken": [
            {
                "key": key,
                "uid": broken.uid,
                "digest": broken.digest,
                "message": broken.message,
                "since": broken.since.isoformat(),
            }
            for key, broken in memory.broken.items()
        ],
        "unrestorable": sorted(memory.unrestorable),
    }
    packed = gzip.compress(orjson.dumps(document, option=orjson.OPT_SORT_KEYS), mtime=0)
    name = f"{revision_name(fleet.name, revision.number)}-last-valid"
    if len(packed) > LARGEST:
        log.warning("the last valid versions of %s/%s do not fit in a Secret", fleet.namespace, fleet.name)
        return
    body = await _envelope(kube, fleet, revision, name, packed)
    try:
        await kube.create(SECRETS, body)
    except Conflict as conflict:
        if conflict.reason != "AlreadyExists":
            raise
        await kube.patch(SECRETS, name, {"data": body["data"]}, fleet.namespace)
    memory.stored.add(name)


async def _envelope(kube: KubeClient, fleet: Fleet, revision: Revision, name: str, packed: bytes) -> Object:
    owner = await kube.get(CONFIG_REVISIONS, revision_name(fleet.name, revision.number), fleet.namespace)
    reference = {
        "apiVersion": CONFIG_REVISIONS.api_version,
        "kind": CONFIG_REVISIONS.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "konverge.dev/last-valid",
        "metadata": {
            "name": name,
            "namespace": fleet.namespace,
            "labels": {"konverge.dev/fleet": fleet.name, LABEL: str(revision.number)},
            "ownerReferences": [reference],
        },
        "data": {"objects": base64.b64encode(packed).decode()},
    }


async def drop_memory(kube: KubeClient, fleet: Fleet, memory: Memory) -> None:
    """Delete what was kept: the sources work as they are."""
    memory.forget()
    for name in sorted(memory.stored):
        await kube.delete(SECRETS, name, fleet.namespace)
        memory.stored.discard(name)
