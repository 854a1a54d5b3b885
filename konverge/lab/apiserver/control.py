"""The lab's own paths under ``/lab/``: faults, cut watches, compaction, the clock. For system:masters only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson

from konverge.lab.apiserver.authorizing import MASTERS
from konverge.lab.apiserver.faults import Fault
from konverge.lab.apiserver.publicpaths import TEXT, Answer
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import bad_request, forbidden_path

FAULT_FIELDS = frozenset(field.name for field in fields(Fault)) - {"id"}


async def serve_control(state: State, request: Request) -> Answer:
    """Serve a request to ``/lab/faults``, ``/lab/watches``, ``/lab/compact``, ``/lab/clock`` or ``/lab/refuse``."""
    if MASTERS not in request.user.groups:
        raise forbidden_path(request.user.name, request.method.lower(), request.path)
    parts = [part for part in request.path.split("/") if part][1:]
    body = _read(request)
    if parts[0] == "faults":
        return _serve_faults(state, request, parts, body)
    if request.method == "POST" and parts == ["watches", "cut"]:
        struck = state.faults.cut_watches(body.get("resource", ""), body.get("user", ""))
        return Answer(orjson.dumps({"cut": struck}))
    if request.method == "POST" and parts == ["compact"]:
        compact(state)
        return Answer(orjson.dumps({"version": state.store.version}))
    if request.method == "POST" and parts == ["clock"]:
        return _serve_clock(state, body)
    if request.method == "POST" and parts == ["refuse"]:
        state.tasks.spawn(state.listener.refuse(float(body.get("seconds", 1.0))))
        return Answer(b"{}")
    return Answer(b"404 page not found\n", 404, TEXT)


def compact(state: State) -> None:
    """Forget all history and the rest of paged lists."""
    state.store.compact()
    state.snapshots.clear()


def _read(request: Request) -> dict[str, Any]:
    if not request.body:
        return {}
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise bad_request(str(error)) from error
    if not isinstance(body, dict):
        raise bad_request("expected an object")
    return body


def _serve_faults(state: State, request: Request, parts: list[str], body: dict[str, Any]) -> Answer:
    if request.method == "GET":
        return Answer(orjson.dumps(state.faults.show()))
    if request.method == "DELETE":
        if len(parts) > 1:
            state.faults.remove(int(parts[1]))
        else:
            state.faults.clear()
        return Answer(b"{}")
    unknown = body.keys() - FAULT_FIELDS
    if unknown or "action" not in body:
        raise bad_request(f"unknown fields: {sorted(unknown)}" if unknown else "action is required")
    return Answer(orjson.dumps({"id": state.faults.add(Fault(**body))}), 201)


def _serve_clock(state: State, body: dict[str, Any]) -> Answer:
    action = body.get("action")
    if action == "stop":
        state.clock.stop()
    elif action == "start":
        state.clock.start()
    elif action == "move":
        state.clock.move(float(body.get("seconds", 0)))
    else:
        raise bad_request("action is one of stop, start, move")
    return Answer(orjson.dumps({"now": state.clock.stamp()}))
