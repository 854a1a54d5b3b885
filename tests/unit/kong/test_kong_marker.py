"""The marker outranks every route, is found by nobody else, and leaves the document as it was."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konverge.errors import UsageError
from konverge.kong import marker
from konverge.kong.marker import add_marker, build_request, find_shadows, remove_marker

TOKEN = "0123456789abcdef"
DOCUMENT: dict[str, Any] = {
    "_format_version": "3.0",
    "services": [{"name": "s", "host": "h", "routes": [{"name": "r", "paths": ["/"]}]}],
    "routes": [{"name": "loose", "paths": ["/x"]}],
}


def mark(document: dict[str, Any], revision: int = 7, flavor: str = "traditional") -> dict[str, Any]:
    return add_marker(document, fleet="edge", revision=revision, token=TOKEN, flavor=flavor)


@pytest.mark.parametrize("flavor", ["traditional", "traditional_compatible"])
def test_traditional_route_uses_every_kind_of_condition(flavor: str) -> None:
    (_, route) = mark(DOCUMENT, flavor=flavor)["routes"]
    request = build_request(TOKEN)
    assert route["hosts"] == [request.headers["Host"]]
    assert route["headers"] == {"X-Konverge-Probe": [request.headers["X-Konverge-Probe"]]}
    assert route["methods"] == ["GET"]
    (pattern,) = route["paths"]
    assert re.compile(pattern.removeprefix("~")).fullmatch(request.path)
    assert not re.compile(pattern.removeprefix("~")).match("/xkonverge/revision")
    assert "service" not in route
    assert "expression" not in route
    assert route["plugins"][0]["config"] == {"status_code": 200, "content_type": "text/plain", "body": "7"}
    assert route["tags"] == ["konverge:marker"]


def test_expression_route_has_the_top_priority() -> None:
    route = mark(DOCUMENT, flavor="expressions")["routes"][-1]
    assert route["priority"] == 2**46 - 1
    assert not {"hosts", "paths", "methods", "headers"} & set(route)
    for part in ('http.path == "/.konverge/revision"', f'http.headers.x_konverge_probe == "{TOKEN}"'):
        assert f"({part})" in route["expression"]


def test_ids_belong_to_the_fleet_and_not_to_the_revision() -> None:
    one, two = mark(DOCUMENT, 1)["routes"][-1], mark(DOCUMENT, 2)["routes"][-1]
    other = add_marker(DOCUMENT, fleet="other", revision=1, token=TOKEN, flavor="traditional")["routes"][-1]
    assert one["id"] == two["id"] != other["id"]
    assert len({one["id"], one["plugins"][0]["id"]}) == 2
    assert one["plugins"][0]["config"]["body"] != two["plugins"][0]["config"]["body"]


@given(
    st.fixed_dictionaries(
        {"_format_version": st.just("3.0")},
        optional={
            "routes": st.lists(
                st.fixed_dictionaries({"name": st.text()}, optional={"tags": st.none() | st.lists(st.text())}),
                min_size=1,
            ),
            "services": st.lists(st.fixed_dictionaries({"name": st.text()})),
        },
    )
)
def test_removing_undoes_adding_and_nothing_is_changed_in_place(document: dict[str, Any]) -> None:
    before = copy.deepcopy(document)
    marked = mark(document)
    assert document == before
    assert remove_marker(marked) == before
    assert mark(marked, 8)["routes"][-1]["plugins"][0]["config"]["body"] == "8"
    assert sum(marker.TAG in (r.get("tags") or ()) for r in mark(marked, 8)["routes"]) == 1


@pytest.mark.parametrize("token", ["", "short", 'x" || true == "', "a" * 129, "tab\tseparated"])
def test_tokens_that_could_change_the_meaning_are_refused(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        add_marker({}, fleet="edge", revision=1, token=token, flavor="expressions")
    assert not token or token not in str(caught.value)


def test_global_plugins_that_would_answer_first_are_named() -> None:
    plugins = [
        {"name": "key-auth"},
        {"name": "cors"},
        {"name": "jwt", "enabled": False},
        {"name": "acl", "service": {"id": "x"}},
        {"name": "rate-limiting"},
    ]
    assert find_shadows({"plugins": plugins}) == ("key-auth", "rate-limiting")
    assert find_shadows(DOCUMENT) == ()


def test_a_marked_document_is_plain_json() -> None:
    assert json.loads(json.dumps(mark({}))) == mark({})
