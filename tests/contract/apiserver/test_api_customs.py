"""Custom resources: establishment, pruning, defaults, validation, parts, removal."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_wire import APPLY, MERGE, STRATEGIC, Api, wait_for

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["mode"],
    "properties": {
        "mode": {"type": "string", "enum": ["a", "b"]},
        "replicas": {"type": "integer", "minimum": 0, "maximum": 100, "default": 1},
        "name": {"type": "string", "pattern": "^x", "maxLength": 5},
        "frozen": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "frozen is frozen"}],
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "port": {"x-kubernetes-int-or-string": True},
        "items": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
            },
        },
    },
    "x-kubernetes-validations": [
        {"rule": "self.replicas < 50 || self.mode == 'b'", "message": "only b may be large"},
        {"rule": "!has(self.items) || self.items.all(i, i.name.startsWith('n'))", "message": "names begin with n"},
    ],
}


class Kind:
    def __init__(self, group: str) -> None:
        self.group = group

    def path(self, ns: str, name: str = "") -> str:
        return f"/apis/{self.group}/v1/namespaces/{ns}/widgets" + (f"/{name}" if name else "")

    def body(self, name: str, /, **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": f"{self.group}/v1",
            "kind": "Widget",
            "metadata": {"name": name},
            "spec": {"mode": "a", **spec},
        }


def definition(group: str, spec: dict[str, Any]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "word": {"type": "string"}}},
        },
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
        },
        "additionalPrinterColumns": [
            {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        ],
    }
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }


@pytest.fixture
async def kind(api: Api) -> AsyncIterator[Kind]:
    group = f"g{secrets.token_hex(4)}.example.org"
    await api.ok("POST", CRDS, definition(group, SPEC))

    async def established() -> bool:
        conditions = (await api.ok("GET", f"{CRDS}/widgets.{group}"))["status"].get("conditions") or []
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)

    async def served() -> bool:
        return (await api.send("GET", f"/apis/{group}/v1/widgets")).status == 200

    await wait_for(established)
    await wait_for(served)
    yield Kind(group)
    await api.send("DELETE", f"{CRDS}/widgets.{group}")


async def test_definition_is_established_and_discovered(api: Api, kind: Kind) -> None:
    made = await api.ok("GET", f"{CRDS}/widgets.{kind.group}")
    assert made["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert made["status"]["storedVersions"] == ["v1"]

    async def discovered() -> bool:
        answer = await api.send("GET", f"/apis/{kind.group}/v1")
        return answer.status == 200 and {r["name"] for r in answer.body["resources"]} == {
            "widgets",
            "widgets/status",
            "widgets/scale",
        }

    await wait_for(discovered)


async def test_unknown_fields_are_pruned_and_defaults_filled(api: Api, ns: str, kind: Kind) -> None:
    body = kind.body("w", nope=1, free={"any": {"thing": [1]}}, port="http")
    answer = await api.send("POST", kind.path(ns), body)
    assert answer.status == 201, answer.body
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.nope\\""'
    assert answer.body["spec"] == {"mode": "a", "replicas": 1, "free": {"any": {"thing": [1]}}, "port": "http"}


async def test_unknown_fields_strict(api: Api, ns: str, kind: Kind) -> None:
    answer = await api.send("POST", f"{kind.path(ns)}?fieldValidation=Strict", kind.body("w", nope=1))
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert 'unknown field "spec.nope"' in answer.message


@pytest.mark.parametrize(
    ("spec", "cause"),
    [
        ({"mode": "z"}, ("FieldValueNotSupported", "spec.mode")),
        ({"replicas": -1}, ("FieldValueInvalid", "spec.replicas")),
        ({"replicas": 101}, ("FieldValueInvalid", "spec.replicas")),
        ({"replicas": "3"}, ("FieldValueTypeInvalid", "spec.replicas")),
        ({"name": "y"}, ("FieldValueInvalid", "spec.name")),
        ({"name": "xxxxxx"}, ("FieldValueTooLong", "spec.name")),
        ({"port": [1]}, ("FieldValueTypeInvalid", "spec.port")),
        ({"items": [{"value": "v"}]}, ("FieldValueRequired", "spec.items[0].name")),
        ({"items": [{"name": "n"}, {"name": "n"}]}, ("FieldValueDuplicate", "spec.items[1]")),
    ],
)
async def test_schema(api: Api, ns: str, kind: Kind, spec: dict[str, Any], cause: tuple[str, str]) -> None:
    answer = await api.send("POST", kind.path(ns), kind.body("w", **spec))
    assert (answer.status, answer.reason) == (422, "Invalid")
    assert cause in answer.causes


async def test_required_field(api: Api, ns: str, kind: Kind) -> None:
    body = kind.body("w")
    del body["spec"]["mode"]
    answer = await api.send("POST", kind.path(ns), body)
    assert ("FieldValueRequired", "spec.mode") in answer.causes


async def test_rules(api: Api, ns: str, kind: Kind) -> None:
    refused = await api.send("POST", kind.path(ns), kind.body("w", replicas=60))
    assert refused.message == f'Widget.{kind.group} "w" is invalid: spec: Invalid value: only b may be large'
    refused = await api.send("POST", kind.path(ns), kind.body("w", items=[{"name": "n1"}, {"name": "m"}]))
    assert "names begin with n" in refused.message
    await api.ok("POST", kind.path(ns), kind.body("w", mode="b", replicas=60, items=[{"name": "n1"}]))


async def test_transition_rules(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w", frozen="1"))
    patch = {"spec": {"frozen": "2"}}
    answer = await api.send("PATCH", kind.path(ns, "w"), patch, content_type=MERGE)
    assert answer.causes == [("FieldValueInvalid", "spec.frozen")]
    await api.ok("PATCH", kind.path(ns, "w"), {"spec": {"replicas": 2}}, content_type=MERGE)


async def test_replace_needs_a_version(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    answer = await api.send("PUT", kind.path(ns, "w"), kind.body("w", replicas=2))
    assert answer.causes == [("FieldValueInvalid", "metadata.resourceVersion")]


async def test_status_is_apart(api: Api, ns: str, kind: Kind) -> None:
    made = await api.ok("POST", kind.path(ns), {**kind.body("w"), "status": {"word": "dropped"}})
    assert "status" not in made
    made["status"], made["spec"] = {"word": "kept"}, {"mode": "b"}
    changed = await api.ok("PUT", f"{kind.path(ns, 'w')}/status", made)
    assert (changed["status"], changed["spec"]["mode"]) == ({"word": "kept"}, "a")
    assert changed["metadata"]["generation"] == 1


async def test_scale(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    scale = await api.ok("GET", f"{kind.path(ns, 'w')}/scale")
    assert scale["spec"] == {"replicas": 1}
    await api.ok("PATCH", f"{kind.path(ns, 'w')}/scale", {"spec": {"replicas": 7}}, content_type=MERGE)
    assert (await api.ok("GET", kind.path(ns, "w")))["spec"]["replicas"] == 7


async def test_strategic_merge_is_unknown_here(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    answer = await api.send("PATCH", kind.path(ns, "w"), {}, content_type=STRATEGIC)
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


async def test_apply_merges_keyed_lists(api: Api, ns: str, kind: Kind) -> None:
    path = kind.path(ns, "w")
    one = kind.body("w", items=[{"name": "n1", "value": "1"}])
    await api.ok("PATCH", f"{path}?fieldManager=one", one, content_type=APPLY)
    two = kind.body("w", items=[{"name": "n2", "value": "2"}])
    changed = await api.ok("PATCH", f"{path}?fieldManager=two", two, content_type=APPLY)
    assert {item["name"] for item in changed["spec"]["items"]} == {"n1", "n2"}
    changed = await api.ok("PATCH", f"{path}?fieldManager=one", kind.body("w"), content_type=APPLY)
    assert [item["name"] for item in changed["spec"]["items"]] == ["n2"]


async def test_list_items_carry_their_kind(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    found = await api.ok("GET", kind.path(ns))
    assert found["kind"] == "WidgetList"
    assert found["items"][0]["kind"] == "Widget"


async def test_printer_columns(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    table = await api.ok("GET", kind.path(ns), accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Mode", "Replicas"]
    assert table["rows"][0]["cells"] == ["w", "a", 1]


async def test_removal_takes_the_objects_along(api: Api, ns: str, kind: Kind) -> None:
    await api.ok("POST", kind.path(ns), kind.body("w"))
    await api.ok("DELETE", f"{CRDS}/widgets.{kind.group}")

    async def gone() -> bool:
        return (await api.send("GET", kind.path(ns, "w"))).status == 404

    await wait_for(gone)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "object", "properties": {"a": {"properties": {"b": {"type": "string"}}}}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "default": {"a": None}},
        {"type": "object", "x-kubernetes-validations": [{"rule": "self.nope("}]},
        {"type": "object", "properties": {"a": {"type": "array"}}},
    ],
    ids=["no type", "null in a default", "broken rule", "no items"],
)
async def test_schemas_that_are_refused(api: Api, spec: dict[str, Any]) -> None:
    group = f"g{secrets.token_hex(4)}.example.org"
    answer = await api.send("POST", CRDS, definition(group, spec))
    await api.send("DELETE", f"{CRDS}/widgets.{group}")
    assert (answer.status, answer.reason) == (422, "Invalid"), answer.body
