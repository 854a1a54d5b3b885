"""The built-in kinds and types, read once from ``builtin.json``."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import orjson

from konverge.lab.apiserver.schemas.nodes import ANY, Node, Struct

CODES = {
    "s": "string",
    "i": "integer",
    "n": "number",
    "b": "boolean",
    "t": "time",
    "u": "microtime",
    "q": "quantity",
    "x": "int-or-string",
    "y": "bytes",
}


@lru_cache(maxsize=1)
def load_document() -> dict[str, Any]:
    """Return the decoded document: ``kinds``, ``resources`` and ``types``."""
    document: dict[str, Any] = orjson.loads(files(__package__).joinpath("builtin.json").read_bytes())
    return document


@lru_cache(maxsize=1)
def load_types() -> dict[str, Node]:
    """Return the nodes of all types by short name, such as ``core.v1.PodSpec``."""
    raw = load_document()["types"]
    structs = {name: Struct(name, required=tuple(entry.get("r", ()))) for name, entry in raw.items()}
    atomic = {name for name, entry in raw.items() if entry.get("a")}
    for name, entry in raw.items():
        structs[name].fields = {key: _decode(value, structs, atomic) for key, value in entry["f"].items()}
    return {name: Node("struct", struct, atomic=name in atomic) for name, struct in structs.items()}


def find_type(group: str, version: str, kind: str) -> Node | None:
    """Return the node of a built-in kind."""
    name = load_document()["kinds"].get(f"{group}/{version}/{kind}")
    return load_types()[name] if name else None


def _decode(value: Any, structs: dict[str, Struct], atomic: set[str]) -> Node:
    if isinstance(value, str):
        return Node(CODES[value]) if value in CODES else ANY
    node = _decode_shape(value, structs, atomic)
    if "t" in value:
        node.list_type = value["t"]
        node.keys = tuple(value.get("k", ()))
    node.strategy = tuple(value["s"].split(",")) if "s" in value else ()
    node.merge_key = value.get("m", "")
    node.atomic = node.atomic or bool(value.get("a"))
    return node


def _decode_shape(value: dict[str, Any], structs: dict[str, Struct], atomic: set[str]) -> Node:
    if "r" in value:
        return Node("struct", structs[value["r"]], atomic=value["r"] in atomic)
    if "l" in value:
        return Node("list", element=_decode(value["l"], structs, atomic))
    if "p" in value:
        return Node("map", element=_decode(value["p"], structs, atomic))
    code = value["c"]
    return Node(CODES[code]) if code in CODES else Node("any", preserve=True)
