"""A Kong with a database in memory, called without a network; schemas, defaults, constraints are the stand-in's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson

from konverge.errors import Unavailable
from konverge.kong.database import Operation, Plan, Reply
from konverge.kong.database.applying import perform
from konverge.lab.kong.admin import entities, info
from konverge.lab.kong.admin.answers import Answer
from konverge.lab.kong.admin.parameters import parse_pairs
from konverge.lab.kong.database.answering import WRITING, write_entity
from konverge.lab.kong.database.following import Follower
from konverge.lab.kong.database.store import Database
from konverge.lab.kong.database.violations import Refused
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings

TAG = "konverge-fleet:default.shop"
Spoil = Callable[[str, str], str]
"""(method, path) -> what goes wrong: "lost" (not done, no answer), "unheard" (done, no answer), or "" for nothing."""


class KongInMemory:
    """Implements the protocol of callers; counts what was written."""

    def __init__(self, *, enterprise: bool = False) -> None:
        self._node = StandInKong(Settings(database="postgres", enterprise=enterprise))
        self._database = Database(Path(":memory:"))
        self._node.follower = self._follower = Follower(self._node, self._database)
        self.log: list[tuple[str, str]] = []
        self.spoil: Spoil = lambda method, path: ""

    def close(self) -> None:
        self._database.close()

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [entry for entry in self.log if entry[0] != "GET" and not entry[1].endswith("/validate")]

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        self.log.append((method, path.partition("?")[0]))
        trouble = self.spoil(method, path)
        if trouble == "lost":
            raise Unavailable(f"{method} {path}: lost", delay=0.001)
        reply = self._answer(method, path, orjson.loads(orjson.dumps(body)) if body is not None else {})
        if trouble == "unheard":
            raise Unavailable(f"{method} {path}: unheard", delay=0.001)
        return reply

    def _answer(self, method: str, path: str, body: dict[str, Any]) -> Reply:
        self._follower.load()
        path, _, query = path.partition("?")
        parts = [unquote(part) for part in path.split("/")[1:]]
        if parts[0] == "schemas":
            return _reply(self._read_schema(parts[1:], body))
        place = entities.locate(self._node, parts)
        if place is None:
            return Reply(404, {"message": "Not found"})
        if isinstance(place, Answer):
            return _reply(place)
        if method not in WRITING:
            # Small pages, so that following them is part of every test.
            asked = parse_pairs(query)
            return _reply(entities.answer_place(self._node, place, method, asked | ({"size": "3"} if asked else {})))
        try:
            return _reply(self._database.transact(lambda t: write_entity(self._node, place, method, body, t)))
        except Refused as refused:
            return _reply(refused.answer)

    def _read_schema(self, parts: list[str], body: dict[str, Any]) -> Answer:
        if parts[-1] == "validate":
            return info.validate(self._node, parts[0], body)
        return (
            info.read_plugin_schema(self._node, parts[1])
            if len(parts) == 2
            else info.read_schema(self._node, parts[0])
        )

    def dump(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return all entities without the time of their last change."""
        found = self._follower.load().entities
        return {
            kind: {key: {n: v for n, v in entity.items() if n != "updated_at"} for key, entity in items.items()}
            for kind, items in found.items()
            if items
        }


def _reply(answer: Answer) -> Reply:
    return Reply(answer.status, answer.body if isinstance(answer.body, dict) else {})


async def carry_out(kong: KongInMemory, plan: Plan, shuffle: Callable[[list[Operation]], None]) -> None:
    """Do the operations one by one, those of a stage in any order; each of them must succeed."""
    for stage in (*plan.prepare, *plan.remove):
        operations = list(stage)
        shuffle(operations)
        for operation in operations:
            reply = await perform(kong, operation)
            assert reply.ok, (str(operation), reply.status, dict(reply.body))
