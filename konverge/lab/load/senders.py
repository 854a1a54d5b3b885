"""Sending the requests of one class: which target next, framed how, over which connections."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from konverge.lab.load.outcomes import Ending, Outcome
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass
from konverge.lab.load.pooling import Pool
from konverge.lab.load.requests import (
    Body,
    build_head,
    check_response,
    find_endpoint,
    frame_chunked,
    frame_plain,
    frame_sized,
    make_bodies,
    spread,
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request that is about to be sent."""

    target: Target
    parts: list[bytes]
    pool: Pool
    body: Body | None = None


class Sender:
    """The next request of a class, and the pools that carry them: one for each TLS server name."""

    def __init__(self, plan: LoadPlan, item: TrafficClass) -> None:
        self._plan = plan
        self._item = item
        self._turns = spread([target.weight for target in item.targets])
        self._pools: dict[str, Pool] = {}
        self._prepared = [self._prepare(target) for target in item.targets]
        self._bodies = itertools.cycle(make_bodies(item.body_bytes, plan.seed)) if item.kind == "body" else None
        self._chunked_credit = 0.0

    @property
    def pools(self) -> list[Pool]:
        """The pools of the class."""
        return list(self._pools.values())

    def next_shot(self) -> Shot:
        """Return the next request."""
        target, head, pool = self._prepared[next(self._turns)]
        if self._bodies is None:
            return Shot(target, frame_plain(head, target.method), pool)
        body = next(self._bodies)
        self._chunked_credit += self._item.chunked_share
        if self._chunked_credit >= 1:
            self._chunked_credit -= 1
            return Shot(target, frame_chunked(head, body), pool, body)
        return Shot(target, frame_sized(head, body), pool, body)

    async def send(self, shot: Shot, outcome: Outcome) -> None:
        """Send a request and check its answer; ExchangeFailed where either goes wrong."""
        response, retried = await shot.pool.send(shot.target.method, shot.parts, self._plan.timeout)
        check_response(shot.target, response, shot.body if self._item.verify_echo else None)
        if retried:
            outcome.ending = Ending.RETRIED

    def _prepare(self, target: Target) -> tuple[Target, bytes, Pool]:
        fresh = self._item.kind == "fresh"
        endpoint = find_endpoint(self._plan, target)
        pool = self._pools.setdefault(
            endpoint.server_name,
            Pool(endpoint, 0 if fresh else self._item.connections, self._plan.connect_timeout),
        )
        return target, build_head(self._plan, target, close=fresh), pool
