"""Reads what a running proxy has loaded, page by page, with the schemas that tell its defaults.

``GET /config`` would be one request, but it blocks the workers for seconds where the configuration is large.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from konverge.errors import Invalid, NotFound
from konverge.kong.admin import LONG_READ_TIMEOUT, AdminClient
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


async def read_entities(admin: AdminClient) -> Configuration:
    """Return the loaded configuration of a proxy, flat, with the schemas of what is in it.

    :raises KonvergeError: the proxy does not answer, or refuses.
    """
    limit = asyncio.Semaphore(AT_ONCE)
    found = await asyncio.gather(*(_read(admin, path, limit) for path in KINDS.values()))
    loaded = {kind: entities for kind, entities in zip(KINDS, found, strict=True) if entities is not None}
    for certificate in loaded.get("certificates", ()):
        certificate.pop("snis", None)  # they are a kind of their own
    loaded["targets"] = await _read_children(admin, loaded.get("upstreams", ()), "upstreams", "targets", limit)
    groups = loaded.get("consumer_groups")
    if groups is not None:
        loaded["consumer_group_consumers"] = await _read_memberships(admin, groups, limit)
    table = tabulate((kind, entity) for kind, entities in loaded.items() for entity in entities)
    table.kinds = frozenset(loaded)
    table.schemas = await _read_schemas(admin, loaded.get("plugins", ()), limit)
    return table


async def _read(admin: AdminClient, path: str, limit: asyncio.Semaphore) -> list[Entity] | None:
    async with limit:
        try:
            return [entity async for entity in admin.list_entities(path)]
        except (NotFound, Invalid):
            return None


async def _read_children(
    admin: AdminClient, owners: Iterable[Entity], kind: str, child: str, limit: asyncio.Semaphore
) -> list[Entity]:
    paths = [f"{kind}/{quote(str(owner['id']), safe='')}/{child}" for owner in owners]
    found = await asyncio.gather(*(_read(admin, path, limit) for path in paths))
    return [entity for entities in found for entity in entities or ()]


async def _read_memberships(admin: AdminClient, groups: Iterable[Entity], limit: asyncio.Semaphore) -> list[Entity]:
    rows = []
    for group in groups:
        members = await _read(admin, f"consumer_groups/{quote(str(group['id']), safe='')}/consumers", limit)
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
