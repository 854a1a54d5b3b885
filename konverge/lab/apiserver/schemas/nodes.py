"""A node describes one value of an API type: its shape, and how patches and appliers merge it.

Built-in types are read from ``builtin.json``; custom resources are converted from their OpenAPI schema.
Structured merge, strategic merge, decoding and field validation all walk the same nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCALARS = frozenset(
    {
        "string",
        "integer",
        "number",
        "boolean",
        "time",
        "microtime",
        "quantity",
        "int-or-string",
        "bytes",
    }
)


@dataclass(slots=True)
class Struct:
    """A type with named fields; shared by reference, so that types may contain themselves."""

    name: str
    fields: dict[str, Node] = field(default_factory=dict)
    required: tuple[str, ...] = ()


@dataclass(slots=True)
class Node:
    """One value: ``kind`` is struct, map, list, any or one of :data:`SCALARS`.

    ``list_type`` is atomic, set or map (then ``keys`` name the identifying fields); ``atomic`` holds for
    structs and maps that have one owner as a whole. ``strategy`` and ``merge_key`` are those of a strategic
    merge patch, which may differ: a container's ports are merged by ``containerPort`` there, and by
    ``containerPort`` and ``protocol`` when applied by the server.
    """

    kind: str
    struct: Struct | None = None
    element: Node | None = None
    list_type: str = "atomic"
    keys: tuple[str, ...] = ()
    atomic: bool = False
    strategy: tuple[str, ...] = ()
    merge_key: str = ""
    preserve: bool = False
    """Unknown fields stay (``x-kubernetes-preserve-unknown-fields``)."""
    embedded: bool = False
    """The value is itself an object with apiVersion, kind and metadata."""
    default: Any = None

    def child(self, key: str) -> Node | None:
        """Return the node of a field, or None where the type has no such field."""
        if self.struct is not None:
            found = self.struct.fields.get(key)
            if found is not None:
                return found
        if self.kind == "map":
            return self.element
        return ANY if self.kind == "any" or self.preserve else None

    @property
    def leaf(self) -> bool:
        """Whether the value has one owner as a whole."""
        if self.kind == "list":
            return self.list_type == "atomic"
        return self.kind in SCALARS or self.atomic


ANY = Node("any", preserve=True)
"""A value of unknown shape: its maps are granular, its lists atomic."""

KEY_DEFAULTS: Mapping[str, str] = {"protocol": "TCP"}
"""Values of identifying fields that appliers may leave out (declared in the types' ``+default`` tags)."""


def identify_item(node: Node, item: Any) -> tuple[tuple[str, Any], ...] | None:
    """Return the identity of an item in a list of type map, or None where a key is missing."""
    if not isinstance(item, Mapping):
        return None
    pairs: list[tuple[str, Any]] = []
    for key in node.keys:
        value = item.get(key)
        if value is None:
            value = _default_of(node, key)
        if value is None:
            continue
        pairs.append((key, value))
    return tuple(pairs) or None


def _default_of(node: Node, key: str) -> Any:
    declared = node.element.child(key) if node.element is not None else None
    if declared is not None and declared.default is not None:
        return declared.default
    return KEY_DEFAULTS.get(key)
