"""The CRDs are structural, say what the models say, and print columns that exist."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from konverge.kube.crds import COLUMNS, KINDS, build_crds, build_schema
from konverge.kube.resources import PROXY_FLEETS, Object, Resource
from konverge.model.condition import Condition
from konverge.model.fleet import FleetSpec, FleetStatus
from konverge.model.migration import MigrationSpec, MigrationStatus, RollbackPoint, Step, StepRecord
from konverge.model.proxy import Mtls, ProxyStatus
from konverge.model.revision import RevisionSpec

CRDS = {crd["spec"]["names"]["kind"]: crd for crd in build_crds()}
NOW = datetime(2026, 5, 1, tzinfo=UTC)
CONDITION = Condition(type="T", status="True", reason="R", last_transition_time=NOW)
FILLED: dict[type[BaseModel], Any] = {
    FleetSpec: FleetSpec(proxy_service="s", features={"A": True}),
    FleetStatus: FleetStatus(last_sync=NOW, conditions=(CONDITION,)),
    MigrationSpec: MigrationSpec(fleet="f", release="r"),
    MigrationStatus: MigrationStatus(
        steps=(StepRecord(step=Step.SYNC, started=NOW, finished=NOW),),
        rollback_point=RollbackPoint(service="s", selector={"a": "b"}, replicas=1),
        evidence={"a": "b"},
    ),
    ProxyStatus: ProxyStatus(
        loaded_revision=1, last_push=NOW, push_milliseconds=2, mtls=Mtls(expires=NOW), conditions=(CONDITION,)
    ),
    RevisionSpec: RevisionSpec(fleet="f", number=1, hash="h", size=1, created=NOW),
}


def schema_of(crd: Object) -> Object:
    return dict(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def nodes(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every schema inside a schema, itself first."""
    yield path or ".", schema
    for name, field in (schema.get("properties") or {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{path}[]")


ALL = [(f"{kind}{path}", node) for kind, crd in CRDS.items() for path, node in nodes(schema_of(crd))]


def test_there_are_five_kinds() -> None:
    assert sorted(CRDS) == ["ConfigRevision", "FleetMigration", "ProxyFleet", "ProxyInstance", "SealedIdentity"]
    assert {crd["metadata"]["name"] for crd in CRDS.values()} == {f"{r.plural}.konverge.dev" for r, *_ in KINDS}


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_every_node_is_structural(path: str, node: Object) -> None:
    if node.get("x-kubernetes-int-or-string"):
        assert not {"type", "properties", "items"} & set(node), "its type is said by the extension alone"
        return
    assert isinstance(node.get("type"), str), "KEP-1693: a type at every level"
    forbidden = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "not", "title", "const", "definitions"}
    assert not forbidden & set(node)
    assert not ("properties" in node and "additionalProperties" in node)
    if node["type"] == "array":
        assert "items" in node


def nulls(value: Any) -> bool:
    if isinstance(value, dict):
        return any(nulls(item) for item in value.values())
    return value is None or (isinstance(value, list) and any(nulls(item) for item in value))


@pytest.mark.parametrize(("path", "node"), ALL, ids=[path for path, _ in ALL])
def test_no_default_is_null_and_every_default_fits(path: str, node: Object) -> None:
    if "default" in node:
        assert not nulls(node["default"])
        assert fits(node, node["default"])


def fits(schema: Object, value: Any) -> bool:
    """Check a value as the API server would, for the keywords that the schemas use."""
    if schema.get("x-kubernetes-int-or-string"):
        return type(value) in (int, str)
    match schema["type"]:
        case "object":
            known, rest = schema.get("properties") or {}, schema.get("additionalProperties")
            named = all(key in known and fits(known[key], item) for key, item in value.items()) if known else True
            others = all(fits(rest, item) for item in value.values()) if isinstance(rest, dict) else True
            return isinstance(value, dict) and named and others and set(schema.get("required") or ()) <= set(value)
        case "array":
            return isinstance(value, list) and all(fits(schema["items"], item) for item in value)
        case "integer":
            return type(value) is int and value >= schema.get("minimum", value)
        case "number":
            return type(value) in (int, float) and value >= schema.get("minimum", value)
        case "boolean":
            return type(value) is bool
    return isinstance(value, str) and value in schema.get("enum", [value])


@pytest.mark.parametrize("model", FILLED, ids=lambda model: model.__name__)
def test_what_a_model_writes_is_what_its_schema_allows(model: type[BaseModel]) -> None:
    schema = build_schema(model)
    assert fits(schema, FILLED[model].to_json())
    assert not fits(schema, {**FILLED[model].to_json(), "unknown": 1})


def missing(model: type[BaseModel], schema: Object) -> list[str]:
    """Fields of a model, nested ones included, that its schema does not have."""
    absent = []
    for name, field in model.model_fields.items():
        node = schema["properties"].get(field.alias or name)
        if node is None:
            absent.append(name)
        for part in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if node and isinstance(part, type) and issubclass(part, BaseModel):
                absent += missing(part, node.get("items", node))
    return absent


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0].kind)
def test_every_field_of_the_models_is_there(kind: tuple[Resource, str, Any, Any]) -> None:
    resource, short, spec, status = kind
    schema = schema_of(CRDS[resource.kind])
    for part, model in (("spec", spec), ("status", status)):
        if model is None:
            assert part not in schema["properties"]
        else:
            assert missing(model, schema["properties"][part]) == []
    assert CRDS[resource.kind]["spec"]["names"]["shortNames"] == [short]


@pytest.mark.parametrize(
    ("kind", "column"), [(k, c) for k, columns in COLUMNS.items() for c in columns], ids=lambda x: str(x)[:40]
)
def test_a_column_shows_a_field_of_its_type(kind: str, column: Object) -> None:
    node = schema_of(CRDS[kind])
    steps = column["jsonPath"].lstrip(".").split(".")
    if steps[0] == "metadata":
        assert column["jsonPath"] == ".metadata.creationTimestamp"
        return
    for step in steps:
        node = node["properties"][step]
    assert column["type"] == node["type"]


def test_a_status_is_a_subresource_and_a_spec_is_required() -> None:
    for resource, _, spec, status in KINDS:
        version = CRDS[resource.kind]["spec"]["versions"][0]
        assert ("subresources" in version) is (status is not None)
        assert (version["schema"]["openAPIV3Schema"].get("required") == ["spec"]) is (spec is not None)


def test_what_an_operator_writes_is_described() -> None:
    spec = schema_of(CRDS[PROXY_FLEETS.kind])["properties"]["spec"]["properties"]
    told = {name for name, node in spec.items() if node.get("description")}
    assert {"ingressClass", "replicas", "proxyService", "rollout", "identity", "paused"} <= told


def test_the_bounds_of_the_models_are_in_the_schema() -> None:
    spec = build_schema(FleetSpec)["properties"]
    assert spec["replicas"]["minimum"] == 0
    assert spec["rollout"]["properties"]["waveSize"]["minimum"] == 1
    assert set(spec["routerFlavor"]["enum"]) == {"traditional", "traditional_compatible", "expressions"}
