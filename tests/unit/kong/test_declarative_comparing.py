"""Comparing configurations by what Kong makes of them."""

from __future__ import annotations

import copy
import hashlib
import random
from typing import Any

import pytest

from konverge.kong.declarative import compare, flatten
from konverge.kong.declarative.comparing import CHANGED, ONLY_LEFT, ONLY_RIGHT, uncompared
from konverge.kong.declarative.defaults import fill_record, normalise
from konverge.kong.declarative.flattening import Configuration, tabulate

DOCUMENT: dict[str, Any] = {
    "_format_version": "3.0",
    "services": [
        {
            "id": "s1",
            "name": "svc",
            "host": "up",
            "plugins": [{"name": "cors", "config": {"credentials": True}}],
            "routes": [{"id": "r1", "name": "rt", "paths": ["/a", "/b"], "tags": ["x", "y"]}],
        }
    ],
    "upstreams": [{"name": "up", "targets": [{"target": "10.0.0.1:80"}]}],
    "consumers": [{"id": "c1", "username": "bob", "acls": [{"group": "g"}]}],
    "consumer_groups": [{"id": "g1", "name": "gold"}],
    "consumer_group_consumers": [{"consumer": "bob", "consumer_group": "gold"}],
    "certificates": [
        {"id": "k1", "cert": "PEM", "key": "K", "snis": [{"name": "h.org", "certificate": {"id": "k1"}}]}
    ],
    "plugins": [{"name": "acl", "route": "rt", "config": {"allow": ["g"]}}],
}


def flat_form() -> dict[str, Any]:
    """Return the same configuration as the Admin API shows it: flat, with ids and defaults."""
    return {
        "services": [
            {
                "id": "s1",
                "name": "svc",
                "host": "up",
                "port": 80,
                "protocol": "http",
                "retries": 5,
                "connect_timeout": 60000,
                "read_timeout": 60000,
                "write_timeout": 60000,
                "enabled": True,
                "path": None,
                "tags": None,
                "created_at": 1,
                "updated_at": 1,
            }
        ],
        "routes": [
            {
                "id": "r1",
                "name": "rt",
                "paths": ["/b", "/a"],
                "tags": ["y", "x"],
                "service": {"id": "s1"},
                "protocols": ["https", "http"],
                "strip_path": True,
                "preserve_host": False,
                "regex_priority": 0,
                "path_handling": "v0",
                "https_redirect_status_code": 426,
                "request_buffering": True,
                "response_buffering": True,
                "methods": None,
                "headers": {},
            }
        ],
        "upstreams": [{"id": "u1", "name": "up", "algorithm": "round-robin", "hash_on": "none", "slots": 10000}],
        "targets": [{"id": "t1", "target": "10.0.0.1:80", "weight": 100, "upstream": {"id": "u1"}, "tags": []}],
        "consumers": [{"id": "c1", "username": "bob"}],
        "acls": [{"id": "a1", "group": "g", "consumer": {"id": "c1"}}],
        "consumer_groups": [{"id": "g1", "name": "gold"}],
        "consumer_group_consumers": [{"id": "m1", "consumer": {"id": "c1"}, "consumer_group": {"id": "g1"}}],
        "certificates": [{"id": "k1", "cert": "PEM\n", "key": "K"}],
        "snis": [{"id": "n1", "name": "h.org", "certificate": {"id": "k1"}}],
        "plugins": [
            {"id": "p1", "name": "cors", "service": {"id": "s1"}, "config": {"credentials": True}, "enabled": True},
            {"id": "p2", "name": "acl", "route": {"id": "r1"}, "config": {"allow": ["g"]}, "consumer": None},
        ],
    }


def test_a_document_equals_itself_in_any_order() -> None:
    other = copy.deepcopy(DOCUMENT)
    for entities in other.values():
        if isinstance(entities, list):
            random.Random(1).shuffle(entities)
    assert compare(DOCUMENT, other) == []


def test_a_nested_document_equals_its_flat_form() -> None:
    flat = flat_form()
    flat["certificates"][0]["cert"] = "PEM"
    assert compare(DOCUMENT, flat) == []
    assert compare(flat, DOCUMENT) == []


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("services", "retries", 6),
        ("services", "path", "/x"),
        ("routes", "paths", ["/a"]),
        ("routes", "strip_path", False),
        ("routes", "service", {"id": "other"}),
        ("upstreams", "hash_on", "ip"),
        ("targets", "weight", 50),
        ("plugins", "enabled", False),
        ("plugins", "config", {"credentials": False}),
        ("certificates", "key", "L"),
        ("consumers", "tags", ["x"]),
    ],
)
def test_a_changed_field_is_found(kind: str, field: str, value: Any) -> None:
    flat = flat_form()
    flat["certificates"][0]["cert"] = "PEM"
    flat[kind][0][field] = value
    (found,) = compare(DOCUMENT, flat)
    assert (found.kind, found.change, found.field.split(".")[0]) == (kind, CHANGED, field)


@pytest.mark.parametrize(
    "kind", [kind for kind in flat_form() if kind not in ("services", "upstreams", "consumers", "routes")]
)
def test_a_missing_entity_is_found_on_either_side(kind: str) -> None:
    flat = flat_form()
    flat["certificates"][0]["cert"] = "PEM"
    del flat[kind][0]
    kinds = [(item.kind, item.change) for item in compare(DOCUMENT, flat) if item.change != CHANGED]
    assert (kind, ONLY_LEFT) in kinds
    assert (kind, ONLY_RIGHT) in [(item.kind, item.change) for item in compare(flat, DOCUMENT)]


def test_repeated_entities_are_counted() -> None:
    once = {"plugins": [{"name": "cors", "service": "s"}]}
    twice = {"plugins": once["plugins"] * 2}
    assert [item.change for item in compare(once, twice)] == [ONLY_RIGHT]


def test_a_stored_password_equals_the_given_one() -> None:
    given = {
        "consumers": [{"id": "c1", "username": "bob", "basicauth_credentials": [{"username": "b", "password": "p"}]}]
    }
    stored = copy.deepcopy(given)
    hashed = hashlib.sha1(b"pc1").hexdigest()
    stored["consumers"][0]["basicauth_credentials"][0]["password"] = hashed
    assert compare(given, stored) == []
    stored["consumers"][0]["basicauth_credentials"][0]["password"] = hashed[::-1]
    assert [item.field for item in compare(given, stored)] == ["password"]


def test_what_kong_makes_up_is_no_difference() -> None:
    given = {
        "consumers": [{"username": "bob", "jwt_secrets": [{"key": "k"}], "hmacauth_credentials": [{"username": "b"}]}]
    }
    stored = {
        "consumers": [{"id": "c1", "username": "bob"}],
        "jwt_secrets": [{"id": "j", "consumer": {"id": "c1"}, "key": "k", "secret": "made up", "algorithm": "HS256"}],
        "hmacauth_credentials": [{"id": "h", "consumer": {"id": "c1"}, "username": "b", "secret": "made up"}],
    }
    assert compare(given, stored) == []


def test_kinds_that_a_side_cannot_tell_are_left_out_and_named() -> None:
    partial = tabulate([("services", {"name": "s", "host": "h"})])
    partial.kinds = frozenset({"services"})
    document = {"services": [{"name": "s", "host": "h"}], "degraphql_routes": [{"uri": "/q"}]}
    assert compare(partial, document) == []
    assert uncompared(partial, document) == ["degraphql_routes"]
    assert uncompared(flatten(document), document) == []


SCHEMA: dict[str, Any] = {
    "fields": [
        {"protocols": {"type": "set", "default": ["http"]}},
        {
            "config": {
                "type": "record",
                "required": True,
                "fields": [
                    {"minute": {"type": "number"}},
                    {"policy": {"type": "string", "default": "local"}},
                    {"codes": {"type": "set", "elements": {"type": "integer"}, "default": [2, 1]}},
                    {
                        "redis": {
                            "type": "record",
                            "required": True,
                            "fields": [{"port": {"default": 6379}}, {"host": {}}],
                        }
                    },
                    {"rules": {"type": "array", "elements": {"type": "record", "fields": [{"n": {"default": 1}}]}}},
                ],
                "shorthand_fields": [
                    {"redis_host": {"deprecation": {"replaced_with": [{"path": ["redis", "host"]}]}}}
                ],
            }
        },
    ]
}


def configure(config: dict[str, Any], **more: Any) -> Configuration:
    configuration = flatten({"plugins": [{"name": "x", "config": config, **more}]})
    configuration.schemas = {"plugins/x": SCHEMA}
    return configuration


def test_defaults_of_a_plugins_schema_are_no_difference() -> None:
    stored = {
        "minute": 5,
        "policy": "local",
        "codes": [1, 2],
        "redis": {"port": 6379, "host": None},
        "rules": [{"n": 1}],
    }
    left = configure({"minute": 5, "rules": [{}]})
    assert compare(left, configure(stored, protocols=["http"], enabled=True)) == []
    stored["policy"] = "redis"
    (found,) = compare(left, configure(stored, protocols=["http"]))
    assert (found.field, found.left, found.right) == ("config.policy", "local", "redis")


def test_a_shorthand_equals_what_replaces_it() -> None:
    assert compare(configure({"redis_host": "h"}), configure({"redis": {"host": "h"}, "redis_host": "h"})) == []
    assert len(compare(configure({"redis_host": "h"}), configure({"redis": {"host": "other"}}))) == 1


def test_records_that_are_none() -> None:
    assert fill_record("text", SCHEMA) == "text"
    assert normalise("plugins", {"name": "x", "config": "odd"}, {"plugins/x": SCHEMA})["config"] == "odd"


def test_stream_routes_have_no_path_settings() -> None:
    given = {"routes": [{"name": "t", "protocols": ["tcp"], "destinations": [{"port": 1}], "path_handling": "v0"}]}
    stored = {
        "routes": [
            {"name": "t", "protocols": ["tcp"], "destinations": [{"port": 1, "ip": None}], "strip_path": False}
        ]
    }
    assert compare(given, stored) == []


@pytest.mark.parametrize(
    "document",
    [
        {"services": "x"},
        {"services": [None, 5, {"routes": "x"}, {"routes": [None]}]},
        {"plugins": [{"config": None}], "upstreams": [{"targets": [5]}]},
        {"consumers": [{}], "odd": [{"a": {"b": [1]}}]},
    ],
)
def test_odd_documents_can_be_compared(document: dict[str, Any]) -> None:
    assert compare(document, document) == []
    compare(document, DOCUMENT)


def list_scalars(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all scalars that decide something."""
    if isinstance(value, dict):
        return [found for key, item in value.items() if key != "id" for found in list_scalars(item, (*path, key))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in list_scalars(item, (*path, index))]
    return [path] if path != ("_format_version",) else []


@pytest.mark.parametrize("path", list_scalars(DOCUMENT), ids=lambda path: ".".join(map(str, path)))
def test_no_change_of_a_scalar_goes_unnoticed(path: tuple[Any, ...]) -> None:
    changed = copy.deepcopy(DOCUMENT)
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = not place[path[-1]] if isinstance(place[path[-1]], bool) else "changed"
    assert compare(DOCUMENT, changed)
