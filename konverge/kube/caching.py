"""A list-watch cache: one paged list, then one watch, for any number of readers.

Bookmarks move the resume point without traffic; 410 means list again and tell only what differs; a broken
connection is taken up from the last resourceVersion after a back-off with jitter, and the caches of one process share
a :class:`~konverge.kube.pacing.Pace`, so that a restart of the API server meets no storm.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from konverge.errors import Conflict, Forbidden, KonvergeError, NotFound
from konverge.kube.client import UNAUTHORIZED, KubeClient
from konverge.kube.pacing import Pace
from konverge.kube.presence import Presence
from konverge.kube.resources import Object, Resource

log = logging.getLogger(__name__)

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between tries, doubled from the first to the longest; client-go's reflector uses 0.8 to 30 s."""
ABSENT_DELAY = 30.0
"""Seconds until a kind whose CRD is not installed is asked for again."""
ALWAYS_SERVED = frozenset({"", "networking.k8s.io", "discovery.k8s.io"})
"""API groups that every cluster has: who may not read them sees nothing, but something may be there."""
RENEWAL_PAUSE = 0.1
WATCH_SECONDS = 300
"""A watch is renewed at least this often (client-go: 5 to 10 min), so that a half-open connection is found."""

Listener = Callable[[str, Object], None]
"""Called with ADDED, MODIFIED or DELETED and the object."""


def object_key(body: Object) -> tuple[str, str]:
    """Return (namespace, name); the namespace is "" for cluster-scoped objects."""
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def backoff_delay(attempt: int, jitter: Callable[[], float] = random.random) -> float:
    """Return the seconds before try ``attempt`` (0 is the first repeat), full jitter over the upper half."""
    longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt, 10))
    return longest * (0.5 + 0.5 * jitter())


@dataclass(eq=False)
class Cache:
    """The objects of one kind, kept current while :meth:`run` runs."""

    kube: KubeClient
    resource: Resource
    namespace: str | None = None
    labels: str = ""
    fields: str = ""
    on_change: Listener | None = None
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    synced: asyncio.Event = field(default_factory=asyncio.Event)
    absent: bool = False
    """True while the kind is not served: its CRD is not installed, or reading a kind of a CRD is forbidden."""
    pace: Pace | None = None
    """What repeats of several caches share; without it each goes by its own back-off."""
    presence: Presence | None = None
    """Tells when a kind that was absent is served; without it the kind itself is asked for again and again."""
    failures: int = 0
    """Tries in a row that failed; 0 while the watch runs."""
    _version: str = ""

    @property
    def version(self) -> str:
        """The resourceVersion up to which changes were seen; "" before the first list and after a 410."""
        return self._version

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self.objects.values()))

    async def run(self) -> None:
        """Keep the cache current until cancelled; never raises for a failing API server."""
        while True:
            try:
                await self._follow()
                # A server that ends every watch at once must not be asked without a pause.
                await asyncio.sleep(RENEWAL_PAUSE * random.uniform(0.5, 1.5))
            except NotFound as error:
                await self._mark_absent(error)
            except Forbidden as error:
                # Where we are not known, or a kind that is always there is denied, what exists was merely not seen.
                if error.reason == UNAUTHORIZED or self.resource.group in ALWAYS_SERVED:
                    await self._back_off(error)
                else:
                    await self._mark_absent(error)
            except Conflict as error:
                # 410: the resume point is too old. List again at once; only a series of them backs off.
                self._version = ""
                await self._back_off(error, immediate=self.failures == 0)
            except KonvergeError as error:
                await self._back_off(error)

    async def _follow(self) -> None:
        if not self._version:
            await self._relist()
        timeout = int(WATCH_SECONDS * random.uniform(0.9, 1.1))
        events = self.kube.watch(
            self.resource,
            self.namespace,
            version=self._version,
            labels=self.labels,
            fields=self.fields,
            timeout=timeout,
        )
        async for kind, body in events:
            self.failures = 0
            self._version = body["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self._take(kind, body)

    async def _relist(self) -> None:
        items, version = await self.kube.list_at(
            self.resource, self.namespace, labels=self.labels, fields=self.fields
        )
        fresh = {object_key(item): item for item in items}
        for key in [key for key in self.objects if key not in fresh]:
            self._take("DELETED", self.objects[key])
        for key, body in fresh.items():
            known = self.objects.get(key)
            if known is None:
                self._take("ADDED", body)
            elif known["metadata"].get("resourceVersion") != body["metadata"].get("resourceVersion"):
                self._take("MODIFIED", body)
        self._version = version
        if self.failures and self.pace is not None:
            self.pace.note_success()
        self.absent = False
        self.synced.set()

    def _take(self, kind: str, body: Object) -> None:
        body.setdefault("apiVersion", self.resource.api_version)
        body.setdefault("kind", self.resource.kind)
        if kind == "DELETED":
            self.objects.pop(object_key(body), None)
        else:
            self.objects[object_key(body)] = body
        if self.on_change is not None:
            self.on_change(kind, body)

    async def _mark_absent(self, error: KonvergeError) -> None:
        if not self.absent:
            log.info("%s is not readable, asked again every %.0f s: %s", self.resource.plural, ABSENT_DELAY, error)
        self.absent = True
        self._version = ""
        self.synced.set()
        if self.presence is not None and isinstance(error, NotFound):
            await self.presence.wait_served(self.resource)
        else:
            await asyncio.sleep(ABSENT_DELAY * random.uniform(0.9, 1.1))

    async def _back_off(self, error: KonvergeError, immediate: bool = False) -> None:
        delay = 0.0 if immediate else backoff_delay(self.failures)
        self.failures += 1
        log.warning("watch of %s ended, again in %.1f s: %s", self.resource.plural, delay, error)
        if self.pace is not None:
            await self.pace.rest(delay)
        else:
            await asyncio.sleep(delay)
