"""Faults that a test switches on: slow, refused, reset or failing requests, cut or silent watches.

A fault matches requests by verb, resource and user (empty means any) and strikes a ``share`` of them, at most
``count`` times. In the process: ``server.faults.add(Fault("status", code=503, share=0.2))``; over the wire:
POST the same fields as JSON to ``/lab/faults`` as a member of system:masters.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.statuses import StatusError, bad_request, internal, too_many_requests

ACTIONS = ("latency", "status", "reset", "hang", "stall-watches")


@dataclass(slots=True)
class Fault:
    """One fault: ``action`` is one of :data:`ACTIONS`; ``seconds`` is for latency, ``code`` for status."""

    action: str
    verb: str = ""
    resource: str = ""
    user: str = ""
    namespace: str = ""
    seconds: float = 0.0
    code: int = 503
    retry_after: int = 1
    share: float = 1.0
    count: int = -1
    id: int = 0

    def matches(self, request: Request) -> bool:
        """Whether the fault is meant for this request."""
        wanted = ((self.verb, request.verb), (self.resource, request.plural), (self.namespace, request.namespace))
        return all(not want or want == have for want, have in wanted) and self.user in ("", request.user.name)


class Cuttable(Protocol):
    """A running watch as the faults see it."""

    request: Request

    def cut(self) -> None:
        """End at once, in the middle of the stream."""

    def close(self) -> None:
        """End properly."""

    def release(self) -> None:
        """Deliver what was held back."""


class Dropped(Exception):
    """The connection is to be cut without an answer."""


class Faults:
    """The faults of one server and the watches that they can strike."""

    def __init__(self, seed: int = 1) -> None:
        self._faults: dict[int, Fault] = {}
        self._ids = itertools.count(1)
        self._random = random.Random(seed)
        self.watches: set[Cuttable] = set()

    def add(self, fault: Fault) -> int:
        """Switch a fault on and return its id."""
        if fault.action not in ACTIONS:
            raise bad_request(f"no such fault: {fault.action!r}; one of {', '.join(ACTIONS)}")
        fault.id = next(self._ids)
        self._faults[fault.id] = fault
        return fault.id

    def remove(self, fault_id: int) -> None:
        """Switch a fault off; stalled watches deliver what they held back."""
        if self._faults.pop(fault_id, None) is not None:
            self._release()

    def clear(self) -> None:
        """Switch all faults off."""
        self._faults.clear()
        self._release()

    def show(self) -> list[dict[str, Any]]:
        """Return the active faults."""
        return [asdict(fault) for fault in self._faults.values()]

    def cut_watches(self, resource: str = "", user: str = "") -> int:
        """Cut running watches in the middle of their streams; returns how many."""
        struck = [
            watch
            for watch in list(self.watches)
            if resource in ("", watch.request.plural) and user in ("", watch.request.user.name)
        ]
        for watch in struck:
            watch.cut()
        return len(struck)

    def stalls(self, request: Request) -> bool:
        """Whether a watch is to hold back its events."""
        return any(f.action == "stall-watches" and f.matches(request) for f in self._faults.values())

    async def strike(self, request: Request) -> None:
        """Apply what matches: wait, raise a Status or raise :class:`Dropped`."""
        for fault in list(self._faults.values()) if self._faults else ():
            if fault.action == "stall-watches" or not fault.matches(request) or not self._take(fault):
                continue
            if fault.action == "latency":
                await asyncio.sleep(fault.seconds)
            elif fault.action == "hang":
                await asyncio.get_running_loop().create_future()
            elif fault.action == "reset":
                raise Dropped
            else:
                raise _refuse(fault)

    def _take(self, fault: Fault) -> bool:
        if fault.count == 0 or (fault.share < 1.0 and self._random.random() >= fault.share):
            return False
        if fault.count > 0:
            fault.count -= 1
        return True

    def _release(self) -> None:
        for watch in list(self.watches):
            if not self.stalls(watch.request):
                watch.release()


def _refuse(fault: Fault) -> StatusError:
    if fault.code == 429:
        return too_many_requests("the server has received too many requests", fault.retry_after)
    if fault.code == 503:
        return StatusError(503, "ServiceUnavailable", "the server is currently unable to handle the request", {})
    if fault.code == 504:
        return StatusError(504, "Timeout", "request did not complete within the allowed duration", {})
    return (
        internal("fault injected", fault.code) if fault.code >= 500 else StatusError(fault.code, "", "fault injected")
    )
