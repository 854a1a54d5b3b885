"""Which objects are behind the difference between two configurations."""

from __future__ import annotations

from typing import Any

import pytest

from konverge.kong.declarative import attribute_changes, describe_change
from konverge.kong.marker import add_marker


def tags(kind: str, name: str) -> list[str]:
    return [f"k8s-name:{name}", "k8s-namespace:shop", f"k8s-kind:{kind}", "k8s-version:v1"]


def route(name: str, owner: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "tags": tags("Ingress", owner), **fields}


def document(*routes: dict[str, Any], **lists: Any) -> dict[str, Any]:
    return {"services": [{"name": "web", "tags": tags("Service", "web"), "routes": list(routes)}], **lists}


A, B = route("a", "one", paths=["/a"]), route("b", "two", paths=["/b"])


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (document(A), document(A, B), "added: Ingress/shop/two"),
        (document(A, B), document(A), "removed: Ingress/shop/two"),
        (document(A), document({**A, "paths": ["/z"]}), "changed: Ingress/shop/one"),
        (document(A), document(A, route("a2", "one")), "changed: Ingress/shop/one"),
        (document(A, B), document(B, A), ""),
        (document(), {}, "removed: Service/shop/web"),
        ({}, {"upstreams": [{"name": "u"}]}, "added: upstream u"),
    ],
)
def test_the_objects_are_named(before: dict[str, Any], after: dict[str, Any], sentence: str) -> None:
    assert describe_change(before, after) == sentence


def test_an_object_is_named_once_whatever_changed_of_it() -> None:
    before = document(A, route("a2", "one", paths=["/a2"]), B)
    after = document({**A, "paths": ["/x"]}, route("a3", "one"), {**B, "hosts": ["h"]})
    assert attribute_changes(before, after) == {
        "added": [],
        "changed": ["Ingress/shop/one", "Ingress/shop/two"],
        "removed": [],
    }


def test_the_first_one_is_the_first() -> None:
    assert describe_change(None, document(A)) == "the first configuration"


def test_the_marker_is_no_change() -> None:
    marked = [
        add_marker(document(A), fleet="shop", revision=r, token="t" * 8, flavor="traditional") for r in ("1", "2")
    ]
    assert describe_change(*marked) == ""


def test_many_are_counted() -> None:
    many = [route(f"r{i}", f"object-{i}") for i in range(12)]
    text = describe_change(document(), document(*many))
    assert text.startswith("added: Ingress/shop/object-0, Ingress/shop/object-1, ")
    assert text.endswith(" and 7 more")


def test_no_secret_is_shown() -> None:
    credential = {"key": "hunter2-secret", "tags": ["k8s-name:my-secret"]}
    before = {"consumers": [{"username": "ann"}]}
    after = {"consumers": [{"username": "ann", "keyauth_credentials": [credential]}]}
    text = describe_change(before, after)
    assert "ann" in text
    assert "hunter2" not in text
