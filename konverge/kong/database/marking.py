"""Whose an entity is, and which revision a database holds; no I/O.

The tag of a fleet is on every entity that Konverge writes. The marker route has another id and name for every
revision, so it answers with the revision only where the router *and* the plugins have been rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID, uuid5

from konverge.kong.marker import NAMESPACE, ROUTE_NAME, TAG

HASH_TAG = "konverge-hash:"
"""Prefix of the marker's tag that tells the hash of the revision."""


def owner_tag(namespace: str, fleet: str) -> str:
    """Return the tag of a fleet's entities; Kong allows neither "/" nor "," in a tag."""
    return f"konverge-fleet:{namespace}.{fleet}"


def mark_document(document: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """Return the document with a marker of its own for the revision of this hash, if it has a marker."""
    routes = document.get("routes")
    if not isinstance(routes, list):
        return dict(document)
    return {**document, "routes": [_rename(route, digest) if is_marker(route) else route for route in routes]}


def is_marker(entity: Mapping[str, Any]) -> bool:
    """Tell whether an entity belongs to the marker."""
    return TAG in (entity.get("tags") or ())


def _rename(route: Mapping[str, Any], digest: str) -> dict[str, Any]:
    plugins = [{**plugin, "id": _derive(plugin, digest)} for plugin in route.get("plugins") or ()]
    return {
        **route,
        "id": _derive(route, digest),
        "name": f"{ROUTE_NAME}-{digest[:12]}",
        "tags": [*(route.get("tags") or ()), HASH_TAG + digest],
        "plugins": plugins,
    }


def _derive(entity: Mapping[str, Any], digest: str) -> str:
    return str(uuid5(UUID(str(entity["id"])) if entity.get("id") else NAMESPACE, digest))


def read_hash(entities: Iterable[Mapping[str, Any]]) -> str:
    """Return the hash that the marker among these routes tells; "" where there is none."""
    for entity in entities:
        if is_marker(entity):
            for tag in entity.get("tags") or ():
                if str(tag).startswith(HASH_TAG):
                    return str(tag).removeprefix(HASH_TAG)
    return ""
