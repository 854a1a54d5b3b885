"""The recorded exchanges with a real Kong 3.9.3, and how two answers are compared.

What differs from run to run is masked on both sides: dates, latencies, timestamps that Kong sets, process ids,
memory, node ids, request ids, random ids, and the ids of plugins and targets (stable in Kong, by a rule of its own).
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "recordings"
BASE = (
    '{"_format_version": "3.0", "services": [{"name": "s1", "url": "http://127.0.11.1:9000", '
    '"routes": [{"name": "r1", "paths": ["/r1"]}]}]}'
)
RECORDED_BACKEND = "127.0.11.1:9000"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
GIVEN_TIME = 1700000000
VOLATILE = {
    "pid": 0,
    "http_allocated_gc": 0,
    "allocated_slabs": 0,
    "node_id": "node",
    "hostname": "host",
    "timers": 0,
    "pids": 0,
    "request_id": "request",
}
RANDOM_HEADERS = {
    "date",
    "x-kong-admin-latency",
    "x-kong-upstream-latency",
    "x-kong-proxy-latency",
    "x-kong-response-latency",
    "x-kong-request-id",
    "content-length",
    "ratelimit-reset",
    "retry-after",
}
"""Fields whose values differ; that they are there is compared."""


def load(group: str) -> list[dict[str, Any]]:
    """Return the exchanges of a group in their order."""
    with (HERE / f"{group}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def make_body(exchange: dict[str, Any]) -> bytes | None:
    """Return the body of a request; long ones are made, not stored."""
    if exchange.get("body") == "$base":
        return BASE.encode()
    if exchange.get("body") is not None:
        return str(exchange["body"]).encode()
    if exchange.get("body_base64"):
        return base64.b64decode(exchange["body_base64"])
    made = exchange.get("body_made")
    if not made:
        return None
    if "pad_to" in made:
        return BASE.encode().ljust(made["pad_to"])
    services = []
    for number in range(made["services"]):
        route: dict[str, Any] = {
            "name": f"rt-{number:06d}",
            "paths": [f"/big/{number:06d}"],
            "hosts": [f"h{number % 100}.example.com"],
        }
        if number == made["bad"]:
            route["protocols"] = ["htp"]
        services.append({"name": f"svc-{number:06d}", "url": f"http://{RECORDED_BACKEND}", "routes": [route]})
    return json.dumps({"_format_version": "3.0", "services": services}).encode()


def mask(value: Any, parent: str = "") -> Any:
    """Return a JSON value with everything volatile masked."""
    if isinstance(value, list):
        masked = [mask(item, parent) for item in value]
        # The order of errors and of plugins follows Lua's hash tables.
        return sorted(masked, key=lambda item: json.dumps(item, sort_keys=True)) if parent in UNORDERED else masked
    if isinstance(value, str):
        value = re.sub(rf"primary key set to '{UUID}'", "primary key set to 'id'", value)
        return re.sub(r"\d+(\.\d+)? (B|KiB|MiB|GiB)$", "size", value) if parent == "allocated_slabs" else value
    if not isinstance(value, dict):
        return value
    if parent in ("plugins", "targets", "keyauth_credentials") and all(re.fullmatch(UUID, key) for key in value):
        return {str(at): mask(value[key], "entity") for at, key in enumerate(sorted(value))}
    masked_id = "config" in value or "target" in value or "key" in value or value.get("entity_type") in MASKED_TYPES
    result = {}
    for key, item in value.items():
        if key in VOLATILE:
            result[key] = VOLATILE[key]
        elif key in ("created_at", "updated_at") and item != GIVEN_TIME:
            result[key] = "time"
        elif key in ("id", "entity_id") and (masked_id or parent in ("entity", "plugins", "targets")):
            result[key] = "id"
        else:
            result[key] = mask(item, key)
    return result


UNORDERED = {"flattened_errors", "errors", "plugins", "data"}
MASKED_TYPES = {"plugin", "target", "keyauth_credential"}


def unfold(value: Any) -> Any:
    """Turn the short form of an array full of nulls back into the array."""
    if isinstance(value, dict):
        if "$holes" in value:
            return [None] * value["$holes"] + [value["last"]]
        return {key: unfold(item) for key, item in value.items()}
    return value


def compare_headers(expected: list[list[str]], actual: list[tuple[str, str]]) -> list[str]:
    """Return the differences between two sets of fields."""

    def index(pairs: Any) -> dict[str, str]:
        return {
            name.lower(): "*" if name.lower() in RANDOM_HEADERS else value
            for name, value in pairs
            if name.lower() not in ("date", "x-kong-admin-latency", "content-length")
        }

    left, right = index(expected), index(actual)
    return [
        f"{name}: expected {left.get(name)!r}, got {right.get(name)!r}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]
