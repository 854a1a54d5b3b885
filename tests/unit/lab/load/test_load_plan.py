from __future__ import annotations

from typing import Any

import orjson
import pytest

from konverge.errors import UsageError
from konverge.lab.load import LoadPlan, TrafficClass, read_plan
from konverge.lab.load.cli import make_plan
from konverge.lab.load.report import LoadReport


def document(**changes: Any) -> bytes:
    plan = {
        "base_url": "http://127.0.0.1:80",
        "classes": [{"name": "a", "kind": "fresh", "targets": [{"name": "t", "credentials": {"k": "sesame"}}]}],
    }
    return orjson.dumps(plan | changes)


def test_a_plan_survives_its_own_file() -> None:
    plan = read_plan(document(rate=3))
    again = read_plan(plan.to_bytes())
    assert again == plan
    assert again.classes[0].targets[0].credentials["k"].get_secret_value() == "sesame"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_url": "127.0.0.1:80"}, "base_url"),
        ({"base_url": "http://127.0.0.1/path"}, "base_url"),
        ({"rate": -1}, "rate"),
        ({"classes": []}, "classes"),
        ({"surprise": 1}, "surprise"),
        ({"classes": [{"name": "a", "kind": "stream", "targets": [{"name": "t"}]}]}, "rate"),
        ({"classes": [{"name": "a", "kind": "fresh", "targets": [{"name": "t", "path": "/a b"}]}]}, "path"),
        (
            {"classes": [{"name": "a", "kind": "fresh", "targets": [{"name": "t", "headers": {"a": "b\r\nc: d"}}]}]},
            "headers",
        ),
        ({"classes": [{"name": "a", "kind": "fresh", "targets": [{"name": "t"}]}] * 2}, "same name"),
    ],
)
def test_a_plan_that_is_off_names_the_field(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_plan(document(**changes))


def test_a_refused_plan_does_not_show_its_secrets() -> None:
    with pytest.raises(UsageError) as caught:
        read_plan(document(rate="sesame"))
    assert "sesame" not in caught.value.message


def test_no_json_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no JSON"):
        read_plan(b"{")


def test_a_url_becomes_a_plan() -> None:
    plan = make_plan(
        "http://127.0.0.1:8000/a?b=c",
        rate=10,
        host="a.test",
        headers=["X-A: 1: 2"],
        expect=[200, 404],
        fresh_share=0.25,
        connections=3,
        timeout=1,
    )
    assert [(item.kind, item.share, item.connections) for item in plan.classes] == [
        ("keepalive", 0.75, 3),
        ("fresh", 0.25, 3),
    ]
    target = plan.classes[0].targets[0]
    assert (target.path, target.host, target.headers, target.expect) == (
        "/a?b=c",
        "a.test",
        {"X-A": "1: 2"},
        [200, 404],
    )


@pytest.mark.parametrize(
    ("url", "headers", "said"),
    [("127.0.0.1", [], "--target"), ("http://127.0.0.1/", ["nocolon"], "--header"), ("http://[::1/", [], "--target")],
)
def test_words_that_are_off_name_the_flag(url: str, headers: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_plan(url, rate=1, headers=headers, expect=[200], fresh_share=0, connections=1, timeout=1)


def test_the_report_has_a_schema_that_names_every_field() -> None:
    properties = LoadReport.model_json_schema()["properties"]
    assert {"requests", "failures", "phases", "messages", "lines", "connections", "schedule"} <= set(properties)


def test_sessions_need_no_rate() -> None:
    item = TrafficClass.model_validate({"name": "s", "kind": "stream", "targets": [{"name": "t"}]})
    assert LoadPlan(base_url="http://127.0.0.1", rate=0, classes=[item]).rate == 0
