"""Reads what a running proxy has loaded, page by page, with the schemas that tell its defaults.

``GET /config`` would be one request, but it blocks the workers for seconds where the configuration is large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from konverge.errors import Invalid, NotFound
from konverge.kong.admin import LONG_READ_TIMEOUT, PAGE_PAUSE, AdminClient
from konverge.kong.declarative.flattening import Configuration, Entity, tabulate
from konverge.kong.reading import parse_object

AT_ONCE = 4
"""Collections that are read at the same time; Kong's workers serve traffic meanwhile."""

KINDS: Mapping[str, str] = {
    "services": "services",
    "routes": "routes",
    "upstreams": "upstreams",
    "plugins": "plugins",
    "consumers": "consumers",
    "consumer_groups": "consumer_groups",
    "certificates": "certificates",
    "snis": "snis",
    "ca_certificates": "ca_certificates",
    "vaults": "vaults",
    "licenses": "licenses",
    "keyauth_credentials": "key-auths",
    "basicauth_credentials": "basic-auths",
    "hmacauth_credentials": "hmac-auths",
    "jwt_secrets": "jwts",
    "oauth2_credentials": "oauth2",
    "acls": "acls",
    "mtls_auth_credentials": "mtls-auths",
}
"""Kind -> collection of the Admin API. Those that a gateway does not have count as unknown."""

_CORE_SCHEMAS = ("services", "routes", "upstreams")


@dataclass(frozen=True, slots=True)
class _Pace:
    """How hard a proxy is asked: so many collections at the same time, and a rest in seconds after each page."""

    limit: asyncio.Semaphore
    rest: float

    async def read(self, admin: AdminClient, path: str) -> list[Entity] | None:
        """Return a collection; None where the gateway does not have it."""
        async with self.limit:
            try:
                found = [entity async for entity in admin.list_entities(path, pause=max(self.rest, PAGE_PAUSE))]
            except (NotFound, Invalid):
                return None
            await asyncio.sleep(self.rest)
            return found


async def read_entities(admin: AdminClient, *, at_once: int = AT_ONCE, rest: float = 0.0) -> Configuration:
    """Return the loaded configuration of a proxy, flat, with the schemas of what is in it.

    ``at_once`` collections are read at the same time, with ``rest`` seconds after each page.

    :raises KonvergeError: the proxy does not answer, or refuses.
    """
    pace = _Pace(asyncio.Semaphore(at_once), rest)
    found = await asyncio.gather(*(pace.read(admin, path) for path in KINDS.values()))
    loaded = {kind: entities for kind, entities in zip(KINDS, found, strict=True) if entities is not None}
    for certificate in loaded.get("certificates", ()):
        certificate.pop("snis", None)  # they are a kind of their own
    loaded["targets"] = await _read_children(admin, loaded.get("upstreams", ()), "upstreams", "targets", pace)
    groups = loaded.get("consumer_groups")
    if groups is not None:
        loaded["consumer_group_consumers"] = await _read_memberships(admin, groups, pace)
    table = tabulate((kind, entity) for kind, entities in loaded.items() for entity in entities)
    table.kinds = frozenset(loaded)
    table.schemas = await _read_schemas(admin, loaded.get("plugins", ()), pace.limit)
    return table


async def _read_children(
    admin: AdminClient, owners: Iterable[Entity], kind: str, child: str, pace: _Pace
) -> list[Entity]:
    paths = [f"{kind}/{quote(str(owner['id']), safe='')}/{child}" for owner in owners]
    found = await asyncio.gather(*(pace.read(admin, path) for path in paths))
    return [entity for entities in found for entity in entities or ()]


async def _read_memberships(admin: AdminClient, groups: Iterable[Entity], pace: _Pace) -> list[Entity]:
    rows = []
    for group in groups:
        members = await pace.read(admin, f"consumer_groups/{quote(str(group['id']), safe='')}/consumers")
        rows += [{"consumer_group": group["id"], "consumer": member["id"]} for member in members or ()]
    return rows


async def _read_schemas(
    admin: AdminClient, plugins: Iterable[Entity], limit: asyncio.Semaphore
) -> dict[str, Mapping[str, Any]]:
    paths = [*_CORE_SCHEMAS, *sorted({f"plugins/{plugin.get('name')}" for plugin in plugins})]

    async def read(path: str) -> Mapping[str, Any] | None:
        async with limit:
            try:
                return await read_schema(admin, path)
            except (NotFound, Invalid):
                return None

    found = await asyncio.gather(*(read(path) for path in paths))
    return {path: schema for path, schema in zip(paths, found, strict=True) if schema is not None}


async def read_schema(admin: AdminClient, path: str) -> Mapping[str, Any]:
    """Return a schema of the gateway: ``routes``, or ``plugins/cors``; NotFound where it has none."""
    answer = await admin._get(f"/schemas/{quote(path)}", timeout=LONG_READ_TIMEOUT)
    return parse_object(answer.body, f"GET {admin.url}/schemas/{path}")
