"""Properties of patches, field sets and server-side apply."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.lab.apiserver.merging.fieldsets import decode_fields, encode_fields
from konverge.lab.apiserver.merging.managing import Manager, apply_configuration, read_managers, write_managers
from konverge.lab.apiserver.merging.patching import merge_json
from konverge.lab.apiserver.merging.strategic import patch_strategic
from konverge.lab.apiserver.merging.structured import collect_fields, compare, merge
from konverge.lab.apiserver.schemas import find_type
from konverge.lab.apiserver.schemas.nodes import ANY
from konverge.lab.apiserver.statuses import StatusError

QUICK = settings(deadline=None, max_examples=60, print_blob=True)
KEYS = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.one_of(st.integers(-3, 3), st.sampled_from(["x", "y"]), st.booleans())
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.dictionaries(KEYS, inner, max_size=3), st.lists(inner, max_size=3)),
    max_leaves=12,
)
MAPS = st.dictionaries(KEYS, TREES, max_size=4)
DATA = st.dictionaries(KEYS, st.sampled_from(["1", "2"]), max_size=4)
PATHS = st.lists(KEYS.map(lambda key: "f:" + key), min_size=1, max_size=4).map(tuple)
POD_SPEC = find_type("", "v1", "Pod").child("spec")  # type: ignore[union-attr]
CONFIG_MAP = find_type("", "v1", "ConfigMap")
assert POD_SPEC is not None
assert CONFIG_MAP is not None


def same(left: Any, right: Any) -> bool:
    """Equality of JSON: true is not 1."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@QUICK
@given(st.sets(PATHS, max_size=12))
def test_field_sets_survive_encoding(paths: set[tuple[str, ...]]) -> None:
    assert decode_fields(encode_fields(paths)) == paths


def difference(old: Any, new: Any) -> Any:
    """The merge patch from one map to another."""
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            patch[key] = difference(old[key], value)
        elif key not in old or not same(old[key], value):
            patch[key] = value
    return patch


@QUICK
@given(MAPS, MAPS)
def test_merge_patch_reaches_its_goal(old: dict[str, Any], new: dict[str, Any]) -> None:
    before = json.dumps(old)
    assert same(merge_json(old, difference(old, new)), new)
    assert json.dumps(old) == before


@QUICK
@given(MAPS, MAPS)
def test_merge_patch_is_idempotent(original: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge_json(original, patch)
    assert same(merge_json(once, patch), once)


CONTAINERS = st.dictionaries(KEYS, st.sampled_from(["i1", "i2"]), max_size=4).map(
    lambda found: [{"name": name, "image": image} for name, image in found.items()]
)


@QUICK
@given(CONTAINERS, CONTAINERS)
def test_strategic_merge_unites_by_key(old: list[Any], new: list[Any]) -> None:
    result = patch_strategic(POD_SPEC, {"containers": old}, {"containers": new})["containers"] if old or new else []
    expected = {c["name"]: c["image"] for c in old} | {c["name"]: c["image"] for c in new}
    assert {c["name"]: c["image"] for c in result} == expected
    assert len(result) == len(expected)


@QUICK
@given(CONTAINERS, st.sets(KEYS, max_size=3))
def test_strategic_merge_deletes_by_key(old: list[Any], doomed: set[str]) -> None:
    patch = {"containers": [{"name": name, "$patch": "delete"} for name in sorted(doomed)]}
    result = patch_strategic(POD_SPEC, {"containers": old}, patch)
    assert [c["name"] for c in result["containers"]] == [c["name"] for c in old if c["name"] not in doomed]


@QUICK
@given(CONTAINERS, st.permutations(["a", "b", "c", "d"]))
def test_set_element_order_orders(old: list[Any], order: list[str]) -> None:
    names = [name for name in order if name in {c["name"] for c in old}]
    patch = {"$setElementOrder/containers": [{"name": name} for name in names], "containers": []}
    result = patch_strategic(POD_SPEC, {"containers": old}, patch)
    assert [c["name"] for c in result["containers"]] == names


@QUICK
@given(MAPS, MAPS)
def test_comparison_finds_a_difference_exactly_where_there_is_one(old: dict[str, Any], new: dict[str, Any]) -> None:
    found = compare(ANY, old, new)
    if old == new:
        assert not found.written
        assert not found.removed
    else:
        assert found.written or found.removed


@QUICK
@given(MAPS)
def test_what_is_claimed_is_what_is_there(value: dict[str, Any]) -> None:
    fields = collect_fields(ANY, value)
    assert bool(fields) == bool(value)


@QUICK
@given(MAPS, MAPS)
def test_structured_merge_contains_what_was_applied(live: dict[str, Any], applied: dict[str, Any]) -> None:
    merged = merge(ANY, live, applied)
    assert all(covers(merged, path) for path in collect_fields(ANY, applied))
    assert all(key in merged for key in live)
    assert same(merge(ANY, merged, applied), merged)


def covers(value: Any, path: tuple[str, ...]) -> bool:
    for step in path:
        if not isinstance(value, dict) or step[2:] not in value:
            return False
        value = value[step[2:]]
    return True


def configure(data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def apply(live: Any, data: dict[str, str], name: str, *, force: bool = True) -> Any:
    manager = Manager(name, "Apply", "", "v1")
    assert CONFIG_MAP is not None
    merged, managers = apply_configuration(CONFIG_MAP, live, configure(data), manager, "now", force)
    result = json.loads(json.dumps(merged))
    write_managers(result, managers)
    return result


@QUICK
@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), DATA), min_size=1, max_size=6))
def test_appliers_own_what_they_last_applied(steps: list[tuple[str, dict[str, str]]]) -> None:
    live: Any = None
    last: dict[str, dict[str, str]] = {}
    for name, data in steps:
        live = apply(live, data, name)
        last[name] = data
        owners = {
            manager.name: {path[1][2:] for path in owned.fields if len(path) == 2}
            for manager, owned in read_managers(live).items()
        }
        assert owners.get(name, set()) == set(data)
        found = live.get("data") or {}
        assert all(found[key] == value for key, value in data.items())
        assert set(found) == {key for keys in owners.values() for key in keys}


@QUICK
@given(DATA, DATA)
def test_conflict_exactly_where_values_differ(first: dict[str, str], second: dict[str, str]) -> None:
    live = apply(None, first, "one")
    clash = sorted(key for key in first.keys() & second.keys() if first[key] != second[key])
    if not clash:
        apply(live, second, "two", force=False)
        return
    with pytest.raises(StatusError) as caught:
        apply(live, second, "two", force=False)
    assert caught.value.code == 409
    assert [c["field"] for c in caught.value.status["details"]["causes"]] == [f".data.{key}" for key in clash]


@QUICK
@given(DATA)
def test_apply_is_idempotent(data: dict[str, str]) -> None:
    once = apply(None, data, "one")
    assert apply(once, data, "one") == once
