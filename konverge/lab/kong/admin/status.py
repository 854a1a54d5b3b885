"""/status and /status/ready."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.admin.answers import Answer, ok, say
from konverge.lab.kong.admin.parameters import BadJson, CrashingJson, parse_body
from konverge.lab.kong.wire.exchange import Request

if TYPE_CHECKING:
    from konverge.lab.kong.node import StandInKong

UNITS = {"b": 0, "k": 1, "m": 2, "g": 3}
NAMES = ("B", "KiB", "MiB", "GiB")
NOT_CONFIGURED = "no configuration available (empty configuration present)"

DICTIONARIES: tuple[tuple[str, int, int], ...] = (
    ("kong", 5, 40960),
    ("kong_locks", 8, 61440),
    ("kong_healthchecks", 5, 40960),
    ("kong_cluster_events", 5, 40960),
    ("kong_rate_limiting_counters", 12, 86016),
    ("kong_core_db_cache", 128, 798720),
    ("kong_core_db_cache_miss", 12, 86016),
    ("kong_db_cache", 128, 794624),
    ("kong_db_cache_miss", 12, 86016),
    ("kong_secrets", 5, 40960),
    ("prometheus_metrics", 5, 40960),
)
"""Shared dictionaries of an idle Kong: name, capacity in MiB, allocated bytes."""

MIB = 1024 * 1024


def read_status(node: StandInKong, query: dict[str, Any]) -> Answer:
    """Answer GET /status; ``unit`` and ``scale`` choose how sizes are printed."""
    unit = query.get("unit", "m")
    scale = query.get("scale", "2")
    if not isinstance(unit, str) or unit.lower() not in UNITS:
        return say(400, f"invalid unit '{unit}' (expected 'k/K', 'm/M', or 'g/G')")
    if not isinstance(scale, str) or not re.fullmatch(r"\d+", scale):
        return say(400, f"invalid scale '{scale}' (expected an integer)")

    def size(count: int) -> int | str:
        power = UNITS[unit.lower()]
        if power == 0:
            return count
        return f"{count / 1024**power:.{int(scale)}f} {NAMES[power]}"

    stats = node.stats
    busy = max(1, stats.busy)
    server = {
        "connections_waiting": max(0, stats.active - busy),
        "total_requests": stats.requests,
        "connections_active": stats.active,
        "connections_handled": stats.accepted,
        "connections_reading": 0,
        "connections_accepted": stats.accepted,
        "connections_writing": busy,
    }
    memory = {
        "workers_lua_vms": [{"pid": pid, "http_allocated_gc": size(node.worker_memory)} for pid in node.worker_pids],
        "lua_shared_dicts": {
            name: {"allocated_slabs": size(used), "capacity": size(capacity * MIB)}
            for name, capacity, used in DICTIONARIES
        },
    }
    if node.follower is not None:
        return ok({"server": server, "memory": memory, "database": {"reachable": True}})
    return ok({"server": server, "memory": memory, "configuration_hash": node.shown_hash})


def read_ready(node: StandInKong) -> Answer:
    """Answer GET /status/ready."""
    if node.draining:
        return say(503, "draining")
    ready, total = node.routers_ready, node.settings.workers
    if ready < total:
        return say(503, f"router builds not yet complete, router ready in {ready} of {total} workers")
    if node.follower is None and node.snapshot.empty:
        return say(503, NOT_CONFIGURED)
    return say(200, "ready")


async def write_ready(node: StandInKong, request: Request) -> Answer:
    """Answer POST /status/ready: {"status": "draining"} takes the node out until it is restarted."""
    try:
        body = parse_body(request.headers.get("content-type"), await request.body.read_all(1 << 20))
    except BadJson:
        return say(400, "Cannot parse JSON body")
    except CrashingJson:
        body = {}
    if body.get("status") != "draining":
        return say(400, "invalid status: should be 'draining'")
    node.draining = True
    return Answer(204)
