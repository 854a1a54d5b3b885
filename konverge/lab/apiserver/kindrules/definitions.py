"""CustomResourceDefinitions: names, versions and schemas that can be served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from konverge.lab.apiserver.custom.schemas import check_schema
from konverge.lab.apiserver.custom.validating import check_defaults
from konverge.lab.apiserver.kindrules.base import Rules, check_unchanged, put_defaults
from konverge.lab.apiserver.statuses import Cause, required, unsupported, wrong
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State


class DefinitionRules(Rules):
    """A definition is named plural.group, stores one version and has a structural schema per version."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        stored = [v["name"] for v in obj["spec"].get("versions") or () if v.get("storage")]
        obj["status"] = {
            "conditions": None,
            "acceptedNames": {"kind": "", "plural": ""},
            "storedVersions": stored,
        }

    @override
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        names = spec.setdefault("names", {})
        if names.get("kind"):
            put_defaults(names, singular=names["kind"].lower(), listKind=names["kind"] + "List")
        put_defaults(spec, conversion={"strategy": "None"})

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        names = spec.get("names") or {}
        causes: list[Cause] = []
        wanted = f"{names.get('plural')}.{spec.get('group')}"
        if obj["metadata"].get("name") != wanted:
            text = 'must be spec.names.plural+"."+spec.group'
            causes.append(wrong("metadata.name", obj["metadata"].get("name"), text))
        if spec.get("scope") not in ("Cluster", "Namespaced"):
            causes.append(unsupported("spec.scope", spec.get("scope") or "", ("Cluster", "Namespaced")))
        versions = spec.get("versions") or []
        if sum(bool(version.get("storage")) for version in versions) != 1:
            text = "must have exactly one version marked as storage version"
            causes.append(wrong("spec.versions", _show(versions), text))
        for index, version in enumerate(versions):
            causes += _check_version(version, f"spec.versions[{index}]")
        if old is not None:
            causes += check_unchanged("spec.scope", spec.get("scope"), old["spec"].get("scope"))
            causes += check_unchanged("spec.names.kind", names.get("kind"), old["spec"]["names"].get("kind"))
        return causes


def _show(versions: list[Any]) -> list[Any]:
    return [version.get("name") for version in versions]


def _check_version(version: Object, field: str) -> list[Cause]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        return [required(f"{field}.schema.openAPIV3Schema", "schemas are required")]
    causes = check_schema(schema, f"{field}.schema.openAPIV3Schema")
    return causes or check_defaults(schema, "spec.validation.openAPIV3Schema")
