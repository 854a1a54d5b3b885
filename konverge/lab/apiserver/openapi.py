"""OpenAPI v2 and v3 documents, generated from the nodes: enough for kubectl's validation, apply and explain."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from konverge.lab.apiserver.kinds import Registry, ResourceKind
from konverge.lab.apiserver.schemas import Node, Struct
from konverge.lab.apiserver.state import VERSION
from konverge.lab.apiserver.store import Object

SCALARS: dict[str, Object] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int32"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "quantity": {"type": "string"},
    "int-or-string": {"type": "string", "format": "int-or-string"},
    "bytes": {"type": "string", "format": "byte"},
    "any": {"type": "object"},
}
QUERY = ("dryRun", "fieldManager", "fieldValidation")
PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)


class Documents:
    """Makes and caches the documents of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._cache: dict[str, bytes] = {}
        self._generation = -1

    def index(self) -> bytes:
        """Return /openapi/v3: one address per group version, with a hash of its content."""
        paths = {}
        for group, versions in self._registry.groups():
            for version in versions:
                name = f"apis/{group}/{version}" if group else f"api/{version}"
                digest = hashlib.sha256(self.version3(group, version)).hexdigest()[:32].upper()
                paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
        return orjson.dumps({"paths": paths})

    def version3(self, group: str, version: str) -> bytes:
        """Return /openapi/v3/apis/GROUP/VERSION."""
        return self._cached(f"3/{group}/{version}", lambda: self._build3(group, version))

    def version2(self) -> bytes:
        """Return /openapi/v2: everything in one document."""
        return self._cached("2", self._build2)

    def _cached(self, key: str, build: Any) -> bytes:
        if self._generation != self._registry.generation:
            self._cache.clear()
            self._generation = self._registry.generation
        if key not in self._cache:
            self._cache[key] = orjson.dumps(build())
        return self._cache[key]

    def _build3(self, group: str, version: str) -> Object:
        writer = _Writer("#/components/schemas/")
        paths: Object = {}
        for kind in self._registry.within(group, version):
            name = writer.add_kind(kind)
            paths |= _paths3(kind, name)
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "components": {"schemas": writer.schemas},
        }

    def _build2(self) -> Object:
        writer = _Writer("#/definitions/")
        paths: Object = {}
        for kind in self._registry:
            name = writer.add_kind(kind)
            paths |= _paths2(kind, name)
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": VERSION},
            "paths": paths,
            "definitions": writer.schemas,
        }


class _Writer:
    """Collects the schemas that the kinds reach."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.schemas: Object = {}

    def add_kind(self, kind: ResourceKind) -> str:
        """Add the schema of a kind and return its name."""
        if kind.custom is None and kind.node is not None and kind.node.struct is not None:
            name = self._add_struct(kind.node.struct)
        else:
            name = ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
            self.schemas[name] = self._custom(kind)
        self.schemas[name]["x-kubernetes-group-version-kind"] = [
            {"group": kind.group, "version": kind.version, "kind": kind.kind}
        ]
        return name

    def _custom(self, kind: ResourceKind) -> Object:
        assert kind.custom is not None
        schema: Object = {"type": "object", **kind.custom.schema}
        meta = kind.node.child("metadata") if kind.node is not None else None
        reference = self._encode(meta) if meta is not None else {"type": "object"}
        extra = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": reference}
        schema["properties"] = {**(schema.get("properties") or {}), **extra}
        return schema

    def _add_struct(self, struct: Struct) -> str:
        name = _full_name(struct.name)
        if name not in self.schemas:
            schema: Object = {"type": "object"}
            self.schemas[name] = schema
            schema["properties"] = {key: self._encode(node) for key, node in struct.fields.items()}
            if struct.required:
                schema["required"] = list(struct.required)
        return name

    def _encode(self, node: Node) -> Object:
        schema = self._encode_shape(node)
        if node.strategy:
            schema["x-kubernetes-patch-strategy"] = ",".join(node.strategy)
        if node.merge_key:
            schema["x-kubernetes-patch-merge-key"] = node.merge_key
        if node.kind == "list":
            schema["x-kubernetes-list-type"] = node.list_type
            if node.keys:
                schema["x-kubernetes-list-map-keys"] = list(node.keys)
        elif node.atomic:
            schema["x-kubernetes-map-type"] = "atomic"
        return schema

    def _encode_shape(self, node: Node) -> Object:
        if node.struct is not None and node.struct.name:
            reference = {"$ref": self._prefix + self._add_struct(node.struct)}
            needs_wrapping = node.strategy or node.atomic
            return {"allOf": [reference]} if needs_wrapping and "components" in self._prefix else reference
        if node.kind == "list":
            return {"type": "array", "items": self._encode(node.element) if node.element else {"type": "object"}}
        if node.kind == "map":
            return {"type": "object", "additionalProperties": self._encode(node.element) if node.element else {}}
        return dict(SCALARS.get(node.kind, {"type": "object"}))


def _full_name(short: str) -> str:
    if short.startswith("meta."):
        return f"io.k8s.apimachinery.pkg.apis.{short}"
    if short.startswith("apiextensions."):
        return f"io.k8s.apiextensions-apiserver.pkg.apis.{short}"
    return f"io.k8s.api.{short}"


def _addresses(kind: ResourceKind) -> tuple[str, str]:
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    space = "/namespaces/{namespace}" if kind.namespaced else ""
    return f"{root}{space}/{kind.plural}", f"{root}{space}/{kind.plural}/{{name}}"


def _operations(kind: ResourceKind) -> tuple[Object, Object]:
    verbs = (
        {"create": "post", "list": "get", "deletecollection": "delete"},
        {
            "get": "get",
            "update": "put",
            "patch": "patch",
            "delete": "delete",
        },
    )
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    collection = {
        method: {
            "operationId": f"{verb}{kind.kind}",
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": gvk,
        }
        for verb, method in verbs[0].items()
        if verb in kind.verbs
    }
    single = {
        method: {
            "operationId": f"{verb}{kind.kind}",
            "x-kubernetes-action": verb,
            "x-kubernetes-group-version-kind": gvk,
        }
        for verb, method in verbs[1].items()
        if verb in kind.verbs
    }
    return collection, single


def _paths3(kind: ResourceKind, name: str) -> Object:
    collection, single = _operations(kind)
    schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    for method, operation in (*collection.items(), *single.items()):
        operation["responses"] = {"200": {"description": "OK", "content": {"application/json": schema}}}
        if method in ("post", "put", "patch"):
            operation["parameters"] = [
                {"name": query, "in": "query", "schema": {"type": "string"}} for query in QUERY
            ]
            types = PATCHES if method == "patch" else ("application/json",)
            operation["requestBody"] = {"content": dict.fromkeys(types, schema)}
    first, second = _addresses(kind)
    return {first: collection, second: single}


def _paths2(kind: ResourceKind, name: str) -> Object:
    collection, single = _operations(kind)
    schema = {"$ref": f"#/definitions/{name}"}
    for method, operation in (*collection.items(), *single.items()):
        operation["responses"] = {"200": {"description": "OK", "schema": schema}}
        if method in ("post", "put", "patch"):
            operation["parameters"] = [{"name": query, "in": "query", "type": "string"} for query in QUERY]
    first, second = _addresses(kind)
    return {first: collection, second: single}
