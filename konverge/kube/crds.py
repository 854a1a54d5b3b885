"""The CustomResourceDefinitions, generated from the models so that they cannot drift apart."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from konverge.kube.resources import (
    CONFIG_REVISIONS,
    FLEET_MIGRATIONS,
    PROXY_FLEETS,
    PROXY_INSTANCES,
    SEALED_IDENTITIES,
    Object,
    Resource,
)
from konverge.model.fleet import FLEET_NAME, FleetSpec, FleetStatus
from konverge.model.identity import SealedSpec
from konverge.model.migration import MigrationSpec, MigrationStatus
from konverge.model.proxy import ProxyStatus
from konverge.model.revision import RevisionSpec, RevisionStatus
from konverge.model.rules import describe_rule

Column = dict[str, Any]


def _column(name: str, path: str, kind: str = "string", priority: int = 0) -> Column:
    column: Column = {"name": name, "type": kind, "jsonPath": path}
    return column | ({"priority": priority} if priority else {})


_AGE = _column("Age", ".metadata.creationTimestamp", "date")

COLUMNS: dict[str, list[Column]] = {
    "ProxyFleet": [
        _column("Revision", ".status.currentRevision", "integer"),
        _column("Proxies", ".status.counts.total", "integer"),
        _column("Synced", ".status.counts.synced", "integer"),
        _column("Ready", ".status.counts.ready", "integer"),
        _column("Quarantined", ".status.counts.quarantined", "integer"),
        _column("State", ".status.reason"),
        _column("Good", ".status.lastGoodRevision", "integer", 1),
        _column("Pinned", ".spec.pinnedRevision", "integer", 1),
        _column("Mode", ".spec.mode", priority=1),
        _AGE,
        _column("Why", ".status.message", priority=1),
    ],
    "ProxyInstance": [
        _column("Phase", ".status.phase"),
        _column("Revision", ".status.loadedRevision", "integer"),
        _column("Desired", ".status.desiredRevision", "integer"),
        _column("Synced", ".status.synced", "boolean"),
        _column("mTLS-until", ".status.mtls.expires"),
        _column("Traffic", ".status.trafficReady", "boolean"),
        _column("Identity", ".status.mtls.subject", priority=1),
        _column("Hash", ".status.loadedHash", priority=1),
        _column("Version", ".status.version", priority=1),
        _column("Node", ".status.node", priority=1),
        _AGE,
        _column("Reason", ".status.reason"),
        _column("Why", ".status.message"),
    ],
    "ConfigRevision": [
        _column("Fleet", ".spec.fleet"),
        _column("Number", ".spec.number", "integer"),
        _column("Hash", ".spec.hash"),
        _column("Bytes", ".spec.size", "integer"),
        _column("Routes", ".spec.routes", "integer"),
        _column("Outcome", ".status.outcome"),
        _column("Author", ".spec.author"),
        _column("Changed", ".spec.reason", priority=1),
        _column("Why", ".status.message", priority=1),
        _AGE,
    ],
    "FleetMigration": [
        _column("Release", ".spec.release"),
        _column("Fleet", ".spec.fleet"),
        _column("Phase", ".status.phase"),
        _column("Reason", ".status.reason"),
        _AGE,
    ],
    "SealedIdentity": [
        _column("Fleet", ".spec.fleet"),
        _column("Key", ".spec.keyId"),
        _column("Format", ".spec.format", priority=1),
        _AGE,
    ],
}

KINDS: tuple[tuple[Resource, str, type[BaseModel] | None, type[BaseModel] | None], ...] = (
    (PROXY_FLEETS, "kfleet", FleetSpec, FleetStatus),
    (PROXY_INSTANCES, "kproxy", None, ProxyStatus),
    (CONFIG_REVISIONS, "krev", RevisionSpec, RevisionStatus),
    (FLEET_MIGRATIONS, "kmig", MigrationSpec, MigrationStatus),
    (SEALED_IDENTITIES, "kseal", SealedSpec, None),
)


def build_crds() -> list[Object]:
    """Return the definitions of group konverge.dev."""
    return [_build_crd(*kind) for kind in KINDS]


def _build_crd(
    resource: Resource, short: str, spec: type[BaseModel] | None, status: type[BaseModel] | None
) -> Object:
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    }
    if spec is not None:
        properties["spec"] = build_schema(spec)
    if status is not None:
        properties["status"] = build_schema(status)
    version: Object = {
        "name": resource.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
        "additionalPrinterColumns": COLUMNS[resource.kind],
    }
    if status is not None:
        version["subresources"] = {"status": {}}
    if spec is not None:
        version["schema"]["openAPIV3Schema"]["required"] = ["spec"]
    if resource is PROXY_FLEETS:
        # A fieldPath must lead through the schema, and that of metadata is the API server's own.
        rule = describe_rule(FLEET_NAME._replace(field=""))
        version["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = [rule]
    names = {
        "plural": resource.plural,
        "singular": resource.kind.lower(),
        "kind": resource.kind,
        "listKind": resource.kind + "List",
        "shortNames": [short],
        "categories": ["konverge"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {"group": resource.group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def build_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the structural schema of a model: references inlined, null branches removed."""
    document = model.model_json_schema(by_alias=True)
    definitions = document.pop("$defs", {})
    schema = _simplify(document, definitions)
    if not isinstance(schema, dict):
        raise TypeError(f"{model.__name__} has no object schema")
    return schema


_DROPPED = frozenset({"title", "const"})


def _simplify(node: Any, definitions: dict[str, Any]) -> Any:
    """Make a JSON schema structural as KEP-1693 asks: no $ref, no anyOf over types."""
    if isinstance(node, list):
        return [_simplify(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[str(node["$ref"]).rsplit("/", 1)[-1]]
        return _simplify({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions)
    branches = [branch for branch in node.get("anyOf", ()) if branch.get("type") != "null"]
    if branches:
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        return _simplify({**rest, **branches[0]}, definitions)
    return _simplify_fields(node, definitions)


def _simplify_fields(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    simple: dict[str, Any] = {}
    for key, value in node.items():
        if key in _DROPPED and not isinstance(value, dict):
            continue
        if key == "default":
            # The API server refuses null for a property that is not nullable, inside a default as well.
            default = _without_nulls(value)
            if default not in (None, "", [], {}):
                simple[key] = default
            continue
        if key == "properties":
            simple[key] = {name: _simplify(field, definitions) for name, field in value.items()}
            if "conditions" in simple[key]:
                # One entry per type: two writers of different conditions merge under server-side apply.
                simple[key]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        elif key == "x-kubernetes-validations":
            simple[key] = value
        elif key == "description":
            simple[key] = " ".join(str(value).split())
        elif key == "exclusiveMinimum":
            simple["minimum"], simple["exclusiveMinimum"] = value, True
        else:
            simple[key] = _simplify(value, definitions)
    return simple


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value
