"""Schemas of custom resources: what makes one structural, and their conversion to nodes."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.custom.rules import compile_rules
from konverge.lab.apiserver.schemas import Node, Struct, load_types
from konverge.lab.apiserver.statuses import Cause, denied, required, unsupported, wrong

Schema = dict[str, Any]

TYPES = ("array", "boolean", "integer", "number", "object", "string")
PRESERVE = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING = "x-kubernetes-int-or-string"
EMBEDDED = "x-kubernetes-embedded-resource"
LIST_TYPE = "x-kubernetes-list-type"
LIST_KEYS = "x-kubernetes-list-map-keys"
MAP_TYPE = "x-kubernetes-map-type"
VALIDATIONS = "x-kubernetes-validations"


def check_schema(schema: Schema, field: str, root: bool = True) -> list[Cause]:
    """Return what keeps a schema from being structural and understood."""
    causes: list[Cause] = []
    kind = schema.get("type")
    if not kind and not schema.get(INT_OR_STRING) and not schema.get(PRESERVE):
        causes.append(required(f"{field}.type", "must not be empty for specified object fields"))
    elif kind and kind not in TYPES:
        causes.append(unsupported(f"{field}.type", kind, TYPES))
    if root and kind and kind != "object":
        causes.append(wrong(f"{field}.type", kind, "must be object at the root"))
    if schema.get("properties") and schema.get("additionalProperties") not in (None, False):
        causes.append(
            denied(f"{field}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    for word in ("$ref", "definitions", "patternProperties", "uniqueItems"):
        if schema.get(word):
            causes.append(denied(f"{field}.{word}", f"{word} is not supported"))
    if schema.get(LIST_TYPE) == "map" and not schema.get(LIST_KEYS):
        causes.append(required(f"{field}.{LIST_KEYS}", "must not be empty if x-kubernetes-list-type is map"))
    causes += [
        wrong(f"{field}.{VALIDATIONS}[{index}].rule", rule, f"compilation failed: {error}")
        for index, rule, error in compile_rules(schema.get(VALIDATIONS) or [])
        if error
    ]
    return causes + _check_parts(schema, field)


def _check_parts(schema: Schema, field: str) -> list[Cause]:
    causes: list[Cause] = []
    for name, child in (schema.get("properties") or {}).items():
        causes += check_schema(child, f"{field}.properties[{name}]", root=False)
    if isinstance(schema.get("items"), dict):
        causes += check_schema(schema["items"], f"{field}.items", root=False)
    elif schema.get("type") == "array":
        causes.append(required(f"{field}.items", "must be specified"))
    if isinstance(schema.get("additionalProperties"), dict):
        causes += check_schema(schema["additionalProperties"], f"{field}.additionalProperties", root=False)
    return causes


def convert_root(schema: Schema) -> Node:
    """Return the node of a custom resource: its schema plus kind, apiVersion and metadata."""
    node = convert_schema(schema)
    if node.kind == "any":
        node = Node("struct", Struct(""), preserve=True)
    assert node.struct is not None
    node.struct.fields |= {
        "apiVersion": Node("string"),
        "kind": Node("string"),
        "metadata": load_types()["meta.v1.ObjectMeta"],
    }
    return node


def convert_schema(schema: Schema) -> Node:
    """Return the node of a schema, for merging and ownership."""
    if schema.get(INT_OR_STRING):
        return Node("int-or-string")
    kind = schema.get("type")
    if kind == "array":
        return _convert_list(schema)
    if kind == "object" or (kind is None and schema.get("properties")):
        return _convert_object(schema)
    if kind is None:
        return Node("any", preserve=True)
    return Node(kind, default=schema.get("default"))


def _convert_list(schema: Schema) -> Node:
    return Node(
        "list",
        element=convert_schema(schema.get("items") or {}),
        list_type=schema.get(LIST_TYPE, "atomic"),
        keys=tuple(schema.get(LIST_KEYS) or ()),
    )


def _convert_object(schema: Schema) -> Node:
    atomic = schema.get(MAP_TYPE) == "atomic"
    extra = schema.get("additionalProperties")
    if extra and not schema.get("properties"):
        element = convert_schema(extra) if isinstance(extra, dict) else Node("any", preserve=True)
        return Node("map", element=element, atomic=atomic)
    fields = {name: convert_schema(child) for name, child in (schema.get("properties") or {}).items()}
    if schema.get(EMBEDDED):
        fields |= {"apiVersion": Node("string"), "kind": Node("string")}
        fields["metadata"] = load_types()["meta.v1.ObjectMeta"]
    if not fields:
        return Node("any", preserve=True, atomic=atomic)
    preserve = bool(schema.get(PRESERVE))
    return Node("struct", Struct("", fields), atomic=atomic, preserve=preserve, embedded=bool(schema.get(EMBEDDED)))
