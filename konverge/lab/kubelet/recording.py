"""Events on pods: what the kubelet did and why something waits."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from datetime import UTC, datetime

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import EVENTS, Object

REMEMBERED = 2000
"""Events whose repetition is counted instead of written anew."""
BURST, REFILL = 25, 300.0
"""Events that one pod may have at once, and seconds until one more: client-go's spam filter."""
MESSAGE_LIMIT = 1024
"""Characters of an Event's message; the API server refuses longer ones."""
log = logging.getLogger(__name__)


def timestamp(moment: datetime | None = None) -> str:
    """Return a time as Kubernetes writes it."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Recorder:
    """Writes Events in the background; a repeated one counts up; an API server that is away loses them."""

    def __init__(self, client: KubeClient, component: str) -> None:
        self._client = client
        self._component = component
        self._queue: asyncio.Queue[tuple[Object, str, str, str, str]] = asyncio.Queue(1000)
        self._budgets: dict[str, tuple[float, float]] = {}
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}

    def record(
        self, pod: Object, reason: str, message: str, *, kind: str = "Normal", field: str = "", host: str = ""
    ) -> None:
        """Queue an Event on a pod; ``kind`` is Normal or Warning, ``field`` the part of the pod it is about."""
        if not self._admit(str(pod["metadata"]["uid"])):
            return
        reference = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "uid": pod["metadata"]["uid"],
            "resourceVersion": pod["metadata"].get("resourceVersion", ""),
        }
        if field:
            reference["fieldPath"] = field
        try:
            self._queue.put_nowait((reference, reason, message[:MESSAGE_LIMIT], kind, host))
        except asyncio.QueueFull:
            log.warning("Too many events: %s of %s is dropped.", reason, reference["name"])

    def _admit(self, uid: str) -> bool:
        """Return whether a pod may have one more Event now."""
        now = time.monotonic()
        tokens, since = self._budgets.pop(uid, (float(BURST), now))
        tokens = min(tokens + (now - since) / REFILL, BURST)
        self._budgets[uid] = (max(tokens - 1, 0.0), now)
        while len(self._budgets) > REMEMBERED:
            self._budgets.pop(next(iter(self._budgets)))
        return tokens >= 1

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        while True:
            item = await self._queue.get()
            try:
                await self._write(*item)
            except KonvergeError as error:
                log.debug("event %s is lost: %s", item[1], error)

    async def _write(self, reference: Object, reason: str, message: str, kind: str, host: str) -> None:
        key = (reference["uid"], reason, message)
        name, count = self._known.pop(key, ("", 0))
        if name:
            patch = {"count": count + 1, "lastTimestamp": timestamp()}
            await self._client.patch(EVENTS, name, patch, reference["namespace"])
        else:
            name = f"{reference['name']}.{secrets.token_hex(8)}"
            await self._client.create(EVENTS, self._event(name, reference, reason, message, kind, host))
        self._known[key] = (name, count + 1)
        while len(self._known) > REMEMBERED:
            self._known.pop(next(iter(self._known)))

    def _event(self, name: str, reference: Object, reason: str, message: str, kind: str, host: str) -> Object:
        now = timestamp()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": reference["namespace"]},
            "involvedObject": reference,
            "reason": reason,
            "message": message,
            "type": kind,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, **({"host": host} if host else {})},
            "reportingComponent": self._component,
            "reportingInstance": host,
        }
