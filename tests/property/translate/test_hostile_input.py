"""Nothing that is handed in makes a translation fail: what cannot be used is a problem, the rest is rendered."""

from __future__ import annotations

import copy
import random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from random_cluster import MAKERS, Cluster

from konverge.cli.manifests import list_objects, parse_text
from konverge.errors import UsageError
from konverge.translate import Settings, Translator, render, render_fallback
from konverge.translate.kinds import KINDS

FEATURES = {
    "ExpressionRoutes": True,
    "KongServiceFacade": True,
    "RewriteURIs": True,
    "EnterpriseEdition": True,
    "SupportRedirectPlugin": True,
}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "konghq.com/plugins", "a:b", "/~", "$", "\x00", "-1", "99999999999999999999"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
GOOD: list[Any] = list(Cluster(random.Random(7)).objects.values())


def check(objects: list[Any]) -> None:
    """Render in several ways; the result must be valid and its bytes must be those of the document."""
    for features in ({}, FEATURES):
        rendered = render(objects, Settings(features=features))
        assert orjson.loads(rendered.content) == orjson.loads(orjson.dumps(rendered.document))
        assert rendered.hash
        for problem in rendered.problems:
            assert problem.message
            assert problem.hint.startswith("reference/translation/")
            orjson.dumps(list(problem.object_ref))


def mutate(value: Any, rng: random.Random, junk: Any) -> Any:
    """Return the object with one value somewhere replaced."""
    changed = copy.deepcopy(value)
    place = changed
    for _ in range(rng.randrange(1, 9)):
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        place[key] = junk
        break
    return changed


@given(seed=st.integers(0, 2**32), junk=st.lists(JUNK, min_size=1, max_size=6))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_objects_are_problems_and_the_rest_is_rendered(seed: int, junk: list[Any]) -> None:
    rng = random.Random(seed)
    objects = list(GOOD)
    for value in junk:
        index = rng.randrange(len(objects))
        objects[index] = mutate(objects[index], rng, value)
    check(objects)


@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(KINDS)), st.dictionaries(st.text(max_size=8), JUNK, max_size=4)), max_size=6
    )
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_of_any_kind(given_objects: list[tuple[str, dict[str, Any]]]) -> None:
    objects: list[Any] = []
    for index, (kind, body) in enumerate(given_objects):
        metadata = {"name": f"n{index}", "namespace": "x"}
        objects.append({"metadata": metadata, **body, "kind": kind, "apiVersion": KINDS[kind].api_version})
    check(objects)


@given(st.lists(JUNK, max_size=4))
@example([None, 5, "text", [], {}, {"kind": "Ingress"}, {"kind": 5, "apiVersion": 5}])
@settings(max_examples=50, deadline=None)
def test_things_that_are_no_objects(objects: list[Any]) -> None:
    check(objects)
    translator = Translator()
    for value in objects:
        for event in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            translator.apply(event, value)
    translator.replace(objects)
    translator.render()


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_one_damaged_object_does_not_touch_the_others(kind: str) -> None:
    name = {"name": "damaged", "namespace": "x"}
    damaged = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {**name, "annotations": 5}}
    with_it, without = render([*GOOD, damaged]), render(GOOD)
    assert with_it.content == without.content
    (problem,) = set(with_it.problems) - set(without.problems)
    assert (problem.reason, problem.object_ref.name) == ("Malformed", "damaged")
    assert "metadata.annotations" in problem.message


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_fallback_of_any_cluster(seed: int) -> None:
    rng = random.Random(seed)
    objects = list(Cluster(rng).objects)
    cluster = Cluster(rng).objects
    broken = [key for key in objects if rng.random() < 0.1]
    rendered = render_fallback(cluster.values(), broken, Settings(), rng.choice((None, GOOD)))
    assert orjson.loads(rendered.content) == orjson.loads(orjson.dumps(rendered.document))


HOSTILE_YAML = {
    "deep flow": "[" * 100_000,
    "deep closed flow": "[" * 50_000 + "]" * 50_000,
    "deep blocks": "- " * 50_000,
    "laughs": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(9)),
    "alias of itself": "a: &a [*a]",
    "unknown tag": "a: !!python/object/apply:os.system [id]",
    "binary tag": "a: !!binary aGk=",
    "unknown alias": "a: *b",
    "tabs": "a:\n\t- b",
    "unclosed": '{"a": [1, ',
    "mapping key": "{[1]: 2}",
    "nul": "a: \x00",
    "merge of text": "<<: text",
    "merge of list": "<<: [a, b]",
    "surrogate": 'a: "\\ud800"',
    "two documents in one line": "--- a --- b",
}


@pytest.mark.parametrize("name", HOSTILE_YAML)
def test_hostile_yaml_is_read_or_refused(name: str) -> None:
    try:
        documents = parse_text(HOSTILE_YAML[name].encode(), name)
    except UsageError:
        return
    check(list_objects(documents))


@pytest.mark.parametrize("name", ["deep flow", "deep blocks", "laughs", "alias of itself", "unknown tag", "unclosed"])
def test_dangerous_yaml_is_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        parse_text(HOSTILE_YAML[name].encode(), name)


@given(st.binary(max_size=200))
@example(b"\xff\xfe")
@example(b"kind: List\nitems: 5")
@example(b"kind: IngressList\nitems: [1, {metadata: 5}]")
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        documents = parse_text(content, "bytes")
    except UsageError:
        return
    check(list_objects(documents))


SNIPPETS = [
    "kind",
    ": ",
    "- ",
    "\n",
    "  ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<",
    "!!str ",
    "|",
    ">",
    '"',
    "'",
    "1e3",
    "~",
]


@given(st.lists(st.sampled_from(SNIPPETS), max_size=40))
@settings(max_examples=200, deadline=None)
def test_yaml_tokens_in_any_order_are_read_or_refused(tokens: list[str]) -> None:
    try:
        documents = parse_text("".join(tokens).encode(), "tokens")
    except UsageError:
        return
    check(list_objects(documents))
