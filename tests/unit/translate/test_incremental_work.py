"""A change redoes what depends on it and nothing else."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from made_objects import (
    consumer,
    credential,
    http_route,
    ingress,
    konghq,
    match,
    path,
    plugin,
    ref,
    service,
    slice_of,
)

from konverge.translate import Rendered, Settings, Translator
from konverge.translate.incremental import consumers as consumer_stage
from konverge.translate.incremental import plugins as plugin_stage
from konverge.translate.incremental import services as service_stage
from konverge.translate.incremental.pausing import pause_collection

COUNT = 30


class Counter:
    """Counts the calls of the functions that do the work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, int] = {}
        for module, name in (
            (service_stage, "assemble"),
            (plugin_stage, "make_entry"),
            (plugin_stage, "prepare"),
            (consumer_stage, "translate_consumer"),
        ):
            monkeypatch.setattr(module, name, self.wrap(name, getattr(module, name)))

    def wrap(self, name: str, function: Any) -> Any:
        def counted(*arguments: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            return function(*arguments)

        return counted

    def take(self) -> dict[str, int]:
        calls, self.calls = self.calls, {}
        return calls


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture
def translator(counter: Counter) -> Translator:
    found = Translator(Settings())
    values = [plugin()]
    for number in range(COUNT):
        values += [
            service(f"s{number}"),
            slice_of(f"s{number}", f"10.0.0.{number}"),
            ingress(f"i{number}", path(f"/{number}", svc=f"s{number}"), annotations=konghq(plugins="plug")),
            consumer(f"c{number}", credentials=[f"k{number}"]),
            credential(f"k{number}", "key-auth", key=f"key-{number}"),
        ]
    found.replace(values)
    found.render()
    assert counter.take() == {"assemble": COUNT, "make_entry": COUNT, "prepare": 1, "translate_consumer": COUNT}
    return found


def changed_lists(before: Rendered, after: Rendered) -> set[str]:
    return {name for name in after.counts if before.document.get(name) != after.document.get(name)}


@pytest.mark.parametrize(
    ("value", "calls", "lists"),
    [
        (slice_of("s3", "10.9.9.9"), {"assemble": 1}, {"upstreams"}),
        (service("s3", annotations=konghq(retries="1")), {"assemble": 1}, {"services"}),
        (ingress("i3", path("/new", svc="s3"), annotations=konghq(plugins="plug")), {"assemble": 1}, {"services"}),
        (
            ingress("i3", path("/3", svc="s3"), host="h.org", annotations=konghq(plugins="plug")),
            {"assemble": 1, "make_entry": 1},
            {"services", "plugins"},
        ),
        (plugin(config={"a": 1}), {"make_entry": COUNT, "prepare": 1}, {"plugins"}),
        (credential("k3", "key-auth", key="other"), {"translate_consumer": 1}, {"consumers"}),
        (service("unused"), {}, set()),
    ],
    ids=["endpoints", "service", "path", "host", "plugin", "credential", "unused"],
)
def test_one_change(
    translator: Translator, counter: Counter, value: dict[str, Any], calls: dict[str, int], lists: set[str]
) -> None:
    before = translator.render()
    assert counter.take() == {}
    translator.apply("MODIFIED", value)
    after = translator.render()
    assert counter.take() == calls
    assert changed_lists(before, after) == lists


def test_the_same_object_again_changes_nothing(translator: Translator, counter: Counter) -> None:
    before = translator.render()
    value = translator.objects[("Ingress", "ns", "i3")]
    translator.apply("MODIFIED", value)
    translator.apply("BOOKMARK", {"kind": "Ingress", "metadata": {"resourceVersion": "5"}})
    assert translator.render().content == before.content
    assert counter.take() == {}


def test_an_older_rendering_stays_as_it_was(translator: Translator) -> None:
    before = translator.render()
    translator.remove("Ingress", "ns", "i3")
    after = translator.render()
    assert before.counts["services"] == COUNT
    assert len(before.document["services"]) == COUNT
    assert after.counts["services"] == COUNT - 1
    assert before.content != after.content


def test_a_new_service_reaches_the_route_that_waits_for_it() -> None:
    translator = Translator()
    translator.apply("ADDED", http_route("r", {"backendRefs": [ref()], "matches": [match()]}))
    assert translator.render().problems
    translator.apply("ADDED", service())
    rendered = translator.render()
    assert not rendered.problems
    assert "plugins" not in rendered.document["services"][0]


def test_the_collector_is_paused_during_bulk_work_only() -> None:
    assert gc.isenabled()
    with pause_collection():
        assert not gc.isenabled()
        with pause_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pause_collection(bulk=False):
        assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), pause_collection():
        raise ZeroDivisionError
    assert gc.isenabled()
