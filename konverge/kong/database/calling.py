"""One call to the Admin API of a gateway with a database, and the pages of a collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlencode

import orjson

from konverge.errors import Unavailable
from konverge.kong.admin import AdminClient

CALL_TIMEOUT = 30.0
"""Seconds for one call; a write waits for the database."""
PAGE_SIZE = 500
"""Entities asked for at once; Kong allows 1,000. A page is one query of the database, no work for the workers."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is neither "not now" nor about our identity; ``body`` is {} where there is no JSON object."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    @property
    def code(self) -> int:
        """Kong's number of an error (``kong/db/errors.lua``); 0 where there is none."""
        code = self.body.get("code")
        return code if isinstance(code, int) else 0


class Caller(Protocol):
    """Sends one request to the Admin API of one proxy."""

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Return the answer; Unavailable or Busy where there is none, Forbidden where our identity is refused."""


class AdminCaller:
    """The real one. ``client`` tells the client of the moment: the identity may be replaced while it works."""

    def __init__(self, client: Callable[[], AdminClient]) -> None:
        self._client = client

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Reply:
        """Return the answer; Unavailable or Busy where there is none, Forbidden where our identity is refused."""
        client = self._client()
        content = None if body is None else orjson.dumps(body)
        answer = await client._send(method, path, timeout=CALL_TIMEOUT, content=content)
        document = _parse(answer.body)
        refused = answer.status in (401, 403, 429) or answer.status >= 500
        if refused or (document is None and answer.status == 400):
            # A page of nginx with a 400 is about our certificate, never about the entity.
            raise client._refusal(answer, f"{method} {client.url}{path.partition('?')[0]}")
        return Reply(answer.status, document or {})


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


async def list_collection(caller: Caller, path: str, tag: str = "") -> list[dict[str, Any]] | None:
    """Return the entities of a collection, those with a tag where one is given; None where there is no such."""
    query = {"size": str(PAGE_SIZE), **({"tags": tag} if tag else {})}
    page = await _read_page(caller, path, query)
    if page is None:
        return None
    entities: list[dict[str, Any]] = list(page.get("data") or ())
    while page.get("next") and page.get("offset"):
        following = await _read_page(caller, path, {**query, "offset": str(page["offset"])})
        if following is None:
            raise Unavailable(f"GET {path}: the collection ended in the middle", reason="MalformedAnswer")
        page = following
        entities += page.get("data") or ()
    return entities


async def _read_page(caller: Caller, path: str, query: Mapping[str, str]) -> Mapping[str, Any] | None:
    reply = await caller.call("GET", f"{path}?{urlencode(query)}")
    if reply.status == 404:
        return None
    if not reply.ok:
        raise Unavailable(f"GET {path}: HTTP {reply.status}", reason="MalformedAnswer")
    return reply.body
