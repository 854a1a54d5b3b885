"""A log line names its object; as JSON it is a field."""

from __future__ import annotations

import logging

import orjson
import pytest

from konverge.controller.journaling import JsonFormatter, find_object


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("proxy shop/kong-1 drifted: FOREIGN", {"object": "proxy", "name": "shop/kong-1"}),
        ("fleet ns/shop: Unavailable: the API", {"object": "fleet", "name": "ns/shop"}),
        ("KongPlugin/shop/limit: PluginConfigInvalid: x", {"object": "KongPlugin", "name": "shop/limit"}),
        ("KongVault//env: Malformed: x", {"object": "KongVault", "name": "env"}),
        ("nothing in particular", {}),
    ],
)
def test_the_object_is_found(message: str, found: dict[str, str]) -> None:
    assert find_object(message) == found


def test_a_line_is_one_json_object() -> None:
    record = logging.LogRecord("konverge.x", logging.WARNING, "f", 1, "proxy %s left\nnow", ("a/b",), None)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert orjson.loads(line) | {"time": ""} == {
        "time": "",
        "level": "WARNING",
        "logger": "konverge.x",
        "message": "proxy a/b left\nnow",
        "object": "proxy",
        "name": "a/b",
    }
