"""Sets of field paths, and their encoding as ``fieldsV1``.

A path is a tuple of steps as ``fieldsV1`` writes them: ``f:name`` for a field, ``k:{"name":"a"}`` for an item
with keys, ``v:"x"`` for a value of a set. A set holds members only: ``{"f:a": {".": {}, "f:b": {}}}`` has the
members ``a`` and ``a.b``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

Path = tuple[str, ...]
FieldSet = frozenset[Path]

EMPTY: FieldSet = frozenset()


def field_step(name: str) -> str:
    """Return the step to a field."""
    return "f:" + name


def key_step(pairs: Iterable[tuple[str, Any]]) -> str:
    """Return the step to an item that is identified by keys."""
    return "k:" + orjson.dumps(dict(sorted(pairs))).decode()


def value_step(value: Any) -> str:
    """Return the step to a value of a set."""
    return "v:" + orjson.dumps(value).decode()


def encode_fields(paths: Iterable[Path]) -> dict[str, Any]:
    """Return the nested form; inner nodes that are members themselves carry a ``.``."""
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for step in path[:-1]:
            if step not in node:
                node[step] = {}
            elif not node[step]:
                node[step]["."] = {}
            node = node[step]
        node.setdefault(path[-1], {})
    return root


def decode_fields(fields: dict[str, Any], prefix: Path = ()) -> set[Path]:
    """Return the members of the nested form."""
    members: set[Path] = set()
    for step, below in fields.items():
        if step == ".":
            members.add(prefix)
            continue
        path = (*prefix, step)
        if below:
            members |= decode_fields(below, path)
        else:
            members.add(path)
    return members


def with_ancestors(paths: Iterable[Path]) -> set[Path]:
    """Return the set with every path above its members added."""
    result: set[Path] = set()
    for path in paths:
        for length in range(1, len(path) + 1):
            result.add(path[:length])
    return result


def show_path(path: Path) -> str:
    """Return a path as conflicts name it: ``.spec.containers[name="a"].image``."""
    shown = ""
    for step in path:
        if step.startswith("f:"):
            shown += "." + step[2:]
        elif step.startswith("k:"):
            pairs = orjson.loads(step[2:])
            shown += "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in pairs.items()) + "]"
        else:
            shown += f"[={step[2:]}]"
    return shown
