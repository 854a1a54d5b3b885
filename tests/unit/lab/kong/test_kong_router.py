"""Routing: priorities, wildcards, regular expressions, expressions, paths for the upstream."""

from __future__ import annotations

import random
from typing import Any

import pytest

from konverge.lab.kong.declarative.compiling import compile_document
from konverge.lab.kong.router.expressions import BadExpression, Parser
from konverge.lab.kong.router.paths import build_upstream_path, normalise
from konverge.lab.kong.router.routes import Asked
from konverge.lab.kong.router.table import Router, _rank
from konverge.lab.kong.schema.registry import load_registry
from konverge.lab.kong.state import Snapshot


def router(routes: list[dict[str, Any]], *, expressions: bool = False) -> Router:
    document = {
        "_format_version": "3.0",
        "services": [{"name": "s", "url": "http://h", "routes": routes}],
    }
    registry = load_registry(expressions=expressions)
    return Router(Snapshot(compile_document(document, registry, 1.0)))


def asked(path: str = "/", host: str = "", method: str = "GET", **more: Any) -> Asked:
    headers = {name: [value] for name, value in more.pop("headers", {}).items()}
    return Asked(method, host, path, headers, authority=host, **more)


def name_of(table: Router, request: Asked) -> str | None:
    found = table.find(request)
    return None if found is None else found.route["name"]


def test_more_kinds_of_matchers_win() -> None:
    table = router(
        [
            {"name": "path", "paths": ["/a/b/c"]},
            {"name": "host", "hosts": ["x.com"], "paths": ["/a"]},
            {"name": "method", "hosts": ["x.com"], "paths": ["/"], "methods": ["GET"]},
        ]
    )
    assert name_of(table, asked("/a/b/c", "x.com")) == "method"
    assert name_of(table, asked("/a/b/c", "x.com", "POST")) == "host"
    assert name_of(table, asked("/a/b/c", "y.com", "POST")) == "path"


def test_plain_hosts_before_wildcards_and_longer_paths_first() -> None:
    table = router(
        [
            {"name": "wild", "hosts": ["*.x.com"], "paths": ["/long/path"]},
            {"name": "plain", "hosts": ["a.x.com"], "paths": ["/"]},
            {"name": "deep", "hosts": ["a.x.com"], "paths": ["/long"]},
        ]
    )
    assert name_of(table, asked("/long/path", "a.x.com")) == "deep"
    assert name_of(table, asked("/other", "a.x.com")) == "plain"
    assert name_of(table, asked("/long/path", "b.x.com")) == "wild"
    assert name_of(table, asked("/long/path", "x.com")) is None


def test_regular_expressions_before_prefixes_by_priority() -> None:
    table = router(
        [
            {"name": "prefix", "paths": ["/user/1"]},
            {"name": "low", "paths": ["~/user/\\d+"], "regex_priority": 1},
            {"name": "high", "paths": ["~/user/(?<id>\\d+)$"], "regex_priority": 5},
        ]
    )
    found = table.find(asked("/user/1"))
    assert found is not None
    assert (found.route["name"], found.captures["id"]) == ("high", "1")
    assert name_of(table, asked("/user/1/x")) == "low"
    assert name_of(table, asked("/user/x")) is None


def test_headers() -> None:
    table = router(
        [
            {"name": "any", "paths": ["/"]},
            {"name": "one", "paths": ["/"], "headers": {"x-v": ["A", "b"]}},
            {"name": "regex", "paths": ["/"], "headers": {"x-v": ["~*^z\\d$"]}},
        ]
    )
    assert name_of(table, asked("/", headers={"x-v": "a"})) == "one"
    assert name_of(table, asked("/", headers={"x-v": "Z7"})) == "regex"
    assert name_of(table, asked("/", headers={"x-v": "q"})) == "any"


def test_disabled_services_do_not_route() -> None:
    document = {
        "_format_version": "3.0",
        "services": [{"name": "s", "url": "http://h", "enabled": False, "routes": [{"name": "r", "paths": ["/"]}]}],
    }
    assert Router(Snapshot(compile_document(document, load_registry(), 1.0))).find(asked("/")) is None


def test_index_finds_what_a_scan_finds() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    source = random.Random(seed)
    hosts = ["a.com", "b.com", "*.a.com", "x.a.com", "b.*"]
    paths = ["/", "/a", "/a/b", "/ab", "/a/b/c", "~/a/\\d+", "~/a"]
    routes = []
    for number in range(120):
        route: dict[str, Any] = {"name": f"r{number}"}
        if source.random() < 0.8:
            route["paths"] = source.sample(paths, source.randint(1, 2))
        if source.random() < 0.5 or "paths" not in route:
            route["hosts"] = source.sample(hosts, source.randint(1, 2))
        if source.random() < 0.3:
            route["methods"] = source.sample(["GET", "POST"], 1)
        routes.append(route)
    table = router(routes)
    entries = [*table._others, *(entry for found in table._prefixes.values() for entry in found)]
    for _ in range(400):
        request = asked(
            source.choice(["/", "/a", "/a/b", "/abc", "/a/1", "/zz", "/a/b/c/d"]),
            source.choice(["a.com", "b.com", "x.a.com", "y.a.com", "b.org", "none"]),
            source.choice(["GET", "POST"]),
        )
        fitting = sorted((entry for entry in entries if entry.matches(request)), key=_rank)
        expected = fitting[0].route["name"] if fitting else None
        assert name_of(table, request) == expected


@pytest.mark.parametrize(
    ("service", "path", "matched", "strip", "handling", "expected"),
    [
        ("", "/fr/req", "/fr", False, "v0", "/fr/req"),
        ("", "/fr/req", "/fr", True, "v0", "/req"),
        ("", "/fr", "/fr", True, "v0", "/"),
        ("/s", "/fv0req", "/fv0", False, "v0", "/s/fv0req"),
        ("/s", "/tv0req", "/tv0", True, "v0", "/s/req"),
        ("/s", "/tv1req", "/tv1", True, "v1", "/sreq"),
        ("/s/", "/tv0/req", "/tv0", True, "v0", "/s/req"),
        ("/s", "/tv0", "/tv0", True, "v0", "/s"),
        ("/s", "/abc", "/", True, "v0", "/s/abc"),
    ],
)
def test_upstream_paths(service: str, path: str, matched: str, strip: bool, handling: str, expected: str) -> None:
    assert build_upstream_path(service, path, matched, strip, handling) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/../b", "/b"),
        ("/a//b", "/a/b"),
        ("/%61%2f", "/a%2F"),
        ("/a/./", "/a/"),
        ("/../..", "/"),
        ("/a b", "/a b"),
    ],
)
def test_normalising(path: str, expected: str) -> None:
    assert normalise(path) == expected


def test_expressions_by_priority() -> None:
    table = router(
        [
            {"name": "low", "expression": 'http.path ^= "/"', "priority": 1},
            {
                "name": "high",
                "expression": '(http.host == "a.com") && ((http.path == "/x") || (http.path ^= "/x/"))',
                "priority": 10,
            },
            {
                "name": "header",
                "expression": 'any(http.headers.x_v) ~ "^b$" && net.protocol == "http"',
                "priority": 20,
            },
            {"name": "query", "expression": 'http.queries.q == "1" && !(http.method == "POST")', "priority": 30},
        ],
        expressions=True,
    )
    assert name_of(table, asked("/x/y", "a.com")) == "high"
    assert name_of(table, asked("/xy", "a.com")) == "low"
    assert name_of(table, asked("/", headers={"x-v": "b"})) == "header"
    assert name_of(table, asked("/", query={"q": ["1"]})) == "query"
    assert name_of(table, asked("/", method="POST", query={"q": ["1"]})) == "low"


@pytest.mark.parametrize("text", ['http.path = "/"', "http.path ==", '(http.path == "/"', 'nope == "x"', "5 == 5"])
def test_bad_expressions(text: str) -> None:
    with pytest.raises(BadExpression):
        Parser(text).parse()
