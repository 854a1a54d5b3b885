"""The kinds of entities that are kept in a database: where the Admin API has them and what depends on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

Entity = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``rank`` orders creation: what is referred to has the lower one."""

    name: str
    path: str
    """Its collection in the Admin API."""
    rank: int
    parent: str = ""
    """The field of the owner under which entities are written: a target's ``upstream``."""
    nested: str = ""
    """Path of the collection under the owner."""
    takes: Mapping[str, str] = field(default_factory=dict)
    """Kinds that are deleted along with it -> their path under it (``on_delete`` in Kong's schemas)."""
    uniques: tuple[str, ...] = ()
    """Unique fields besides the one that names the entity."""
    patched: bool = False
    """Whether it is changed by PATCH of what differs, because what is stored cannot be sent back."""


_CREDENTIALS = {
    "keyauth_credentials": "key-auth",
    "basicauth_credentials": "basic-auth",
    "hmacauth_credentials": "hmac-auth",
    "jwt_secrets": "jwt",
    "oauth2_credentials": "oauth2",
    "acls": "acls",
    "mtls_auth_credentials": "mtls-auth",
}
_CREDENTIAL_PATHS = {
    "keyauth_credentials": "key-auths",
    "basicauth_credentials": "basic-auths",
    "hmacauth_credentials": "hmac-auths",
    "jwt_secrets": "jwts",
    "oauth2_credentials": "oauth2",
    "acls": "acls",
    "mtls_auth_credentials": "mtls-auths",
}
"""Not the collections under a consumer: a credential may have to change its owner."""
_PLURAL = {"upstream": "upstreams", "consumer_group": "consumer_groups"}

_ALL = (
    Kind("vaults", "vaults", 0),
    Kind("ca_certificates", "ca_certificates", 0),
    Kind("certificates", "certificates", 0, takes={"snis": "snis"}),
    Kind(
        "consumer_groups",
        "consumer_groups",
        0,
        takes={"plugins": "plugins", "consumer_group_consumers": ""},
    ),
    Kind("snis", "snis", 1),
    Kind("upstreams", "upstreams", 1, takes={"targets": "targets"}),
    Kind(
        "consumers",
        "consumers",
        1,
        takes={"plugins": "plugins", "consumer_group_consumers": "", **_CREDENTIALS},
        uniques=("custom_id",),
    ),
    Kind("targets", "targets", 2, parent="upstream", nested="targets"),
    *(Kind(name, path, 2, patched=name == "basicauth_credentials") for name, path in _CREDENTIAL_PATHS.items()),
    Kind("consumer_group_consumers", "", 2, parent="consumer_group", nested="consumers"),
    Kind("services", "services", 3, takes={"plugins": "plugins"}),
    Kind("routes", "routes", 5, takes={"plugins": "plugins"}),
    Kind("plugins", "plugins", 4, uniques=("instance_name",)),
)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _ALL}

UNTAGGED = frozenset({"consumer_group_consumers"})
"""Kinds without tags: theirs is whose owner's is."""
SKIPPED = frozenset({"licenses"})
"""Kinds that are left alone: a licence has no tags, so nobody could tell whose it is."""


def locate_collection(kind: Kind, entity: Entity) -> str:
    """Return the path to create an entity at."""
    if not kind.parent:
        return f"/{kind.path}"
    return f"/{_PLURAL[kind.parent]}/{_segment(entity[kind.parent])}/{kind.nested}"


def locate_entity(kind: Kind, entity: Entity) -> str:
    """Return the path of an entity."""
    if kind.name == "consumer_group_consumers":
        return f"{locate_collection(kind, entity)}/{_segment(entity['consumer'])}"
    return f"{locate_collection(kind, entity)}/{_segment(entity['id'])}"


def _segment(value: Any) -> str:
    if isinstance(value, Mapping):
        value = value["id"]
    return quote(str(value), safe="")
