"""Schemas: what is filled in and what is refused, against configurations that a real Kong showed."""

from __future__ import annotations

from typing import Any

import pytest

from konverge.lab.kong.schema.filling import fill
from konverge.lab.kong.schema.regexes import compile_problem
from konverge.lab.kong.schema.registry import PRIORITIES, load_registry
from konverge.lab.kong.schema.typedefs import (
    check_path,
    check_router_path,
    check_sni,
    check_wildcard_host,
    split_port,
)
from konverge.lab.kong.schema.validation import validate_value

REGISTRY = load_registry()
UNKNOWN_SCHEMAS = {name for name in PRIORITIES if name.startswith("ai-")}


def config(name: str, **given: Any) -> dict[str, Any]:
    field = REGISTRY.plugin_field(name)
    assert field is not None
    return fill(field.fields, given, nulls=True)


def test_all_45_bundled_plugins_are_known() -> None:
    assert len(REGISTRY.plugins) == 45
    assert {name for name, schema in REGISTRY.plugins.items() if schema.fields is None} == UNKNOWN_SCHEMAS


@pytest.mark.parametrize("name", sorted(set(PRIORITIES) - UNKNOWN_SCHEMAS))
def test_defaults_of_every_plugin_are_valid(name: str) -> None:
    field = REGISTRY.plugin_field(name)
    assert field is not None
    filled = {key: value for key, value in config(name).items() if value is not None}
    wrong = validate_value(field, filled) or {}
    assert {error for error in wrong.values() if error != "required field missing"} == set()


def test_rate_limiting_shows_the_old_redis_names_too() -> None:
    shown = config("rate-limiting", minute=2)
    assert shown["redis_port"] == shown["redis"]["port"] == 6379
    assert (shown["limit_by"], shown["policy"], shown["sync_rate"]) == ("consumer", "local", -1)


def test_longer_periods_must_not_be_tighter() -> None:
    field = REGISTRY.plugin_field("rate-limiting")
    assert field is not None
    wrong = validate_value(field, config("rate-limiting", minute=10, hour=5))
    assert wrong == "The limit for hour(5.0) cannot be lower than the limit for minute(10.0)"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/a", None),
        ("~/a\\d+$", None),
        ("a", "should start with: / (fixed path) or ~/ (regexed path)"),
        ("~a", "should start with: / (fixed path) or ~/ (regexed path)"),
        ("/a//b", "must not have empty segments"),
        ("/a%zz", "invalid url-encoded value: '%zz'"),
        ("/a[", None),
        ("/a{", "invalid path: '/a{' (characters outside of the reserved list of RFC 3986 found)"),
    ],
)
def test_route_paths(path: str, problem: str | None) -> None:
    assert check_router_path(path) == problem


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("/a(", 'pcre2_compile() failed: missing closing parenthesis in "/a("'),
        ("/a)", 'pcre2_compile() failed: unmatched closing parenthesis in "/a)" at ")"'),
        ("/a[b", 'pcre2_compile() failed: missing terminating ] for character class in "/a[b"'),
        ("*a", 'pcre2_compile() failed: quantifier does not follow a repeatable item in "*a" at "*a"'),
        ("/(?<id>\\d+)", None),
    ],
)
def test_regex_problems_in_the_words_of_pcre(pattern: str, problem: str | None) -> None:
    assert compile_problem(pattern) == problem


def test_hosts() -> None:
    assert check_wildcard_host("*.example.com") is None
    assert check_wildcard_host("a.*") is None
    assert check_wildcard_host("a.*.com") == "invalid wildcard: must be placed at leftmost or rightmost label"
    assert check_wildcard_host("*.a.*") == "invalid wildcard: must have at most one wildcard"
    assert check_sni("10.0.0.1") == "must not be an IP"
    assert check_path("x") == "should start with: /"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h:80", ("h", 80)),
        ("h", ("h", None)),
        ("[::1]:80", ("::1", 80)),
        ("h:99999", None),
        ("h:x", None),
        ("bad host", None),
    ],
)
def test_targets(text: str, found: Any) -> None:
    assert split_port(text) == found
