"""Write ``builtin.json`` from the API description that a Kubernetes release publishes.

    python -m konverge.lab.apiserver.schemas.compact swagger.json aggregated_v2.json builtin.json

Both inputs lie in the release's source tree (``api/openapi-spec/swagger.json`` and
``api/discovery/aggregated_v2.json``). Only names, types and merge rules are kept: 4 MB become about 150 kB,
which load in a millisecond.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PREFIXES = ("io.k8s.api.", "io.k8s.apimachinery.pkg.apis.", "io.k8s.apiextensions-apiserver.pkg.apis.")
SERVED = frozenset(
    {
        ("", "v1"),
        ("apps", "v1"),
        ("batch", "v1"),
        ("events.k8s.io", "v1"),
        ("authentication.k8s.io", "v1"),
        ("authorization.k8s.io", "v1"),
        ("autoscaling", "v2"),
        ("certificates.k8s.io", "v1"),
        ("networking.k8s.io", "v1"),
        ("policy", "v1"),
        ("rbac.authorization.k8s.io", "v1"),
        ("storage.k8s.io", "v1"),
        ("admissionregistration.k8s.io", "v1"),
        ("apiextensions.k8s.io", "v1"),
        ("scheduling.k8s.io", "v1"),
        ("coordination.k8s.io", "v1"),
        ("discovery.k8s.io", "v1"),
        ("node.k8s.io", "v1"),
    }
)
UNSERVED = frozenset({"componentstatuses", "bindings", "ipaddresses", "servicecidrs"})
UNSERVED_PARTS = frozenset({"ephemeralcontainers", "resize", "proxy", "approval"})
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "x",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "t",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "u",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "a",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "a",
}
SCALAR_CODES = {"string": "s", "integer": "i", "number": "n", "boolean": "b"}
EXTRA_KINDS = {
    "authentication.k8s.io/v1/TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
    "autoscaling/v1/Scale": "io.k8s.api.autoscaling.v1.Scale",
    "policy/v1/Eviction": "io.k8s.api.policy.v1.Eviction",
    "/v1/Binding": "io.k8s.api.core.v1.Binding",
    "/v1/DeleteOptions": "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
}
"""Kinds that are only read or written through parts of others."""


def shorten(name: str) -> str:
    """Cut the common prefixes off a definition's name: ``core.v1.Pod``."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


class Compaction:
    """Collects the definitions that the served kinds reach."""

    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self.types: dict[str, Any] = {}
        self.kinds: dict[str, str] = {}
        for name, definition in definitions.items():
            for entry in definition.get("x-kubernetes-group-version-kind", ()):
                if (entry["group"], entry["version"]) in SERVED:
                    self.kinds.setdefault(f"{entry['group']}/{entry['version']}/{entry['kind']}", name)

    def add(self, name: str) -> None:
        """Add a definition and all that it refers to."""
        short = shorten(name)
        if short in self.types:
            return
        definition = self._definitions[name]
        entry: dict[str, Any] = {"f": {}}
        self.types[short] = entry
        if definition.get("required"):
            entry["r"] = sorted(definition["required"])
        if definition.get("x-kubernetes-map-type") == "atomic":
            entry["a"] = 1
        for key, value in sorted((definition.get("properties") or {}).items()):
            entry["f"][key] = self._encode(value)

    def _encode(self, value: dict[str, Any]) -> Any:
        base = self._encode_shape(value)
        extra: dict[str, Any] = {}
        if value.get("x-kubernetes-patch-strategy"):
            extra["s"] = value["x-kubernetes-patch-strategy"]
        if value.get("x-kubernetes-patch-merge-key"):
            extra["m"] = value["x-kubernetes-patch-merge-key"]
        if value.get("x-kubernetes-map-type") == "atomic":
            extra["a"] = 1
        if value.get("type") == "array":
            extra["t"] = value.get("x-kubernetes-list-type", "atomic")
            if value.get("x-kubernetes-list-map-keys"):
                extra["k"] = value["x-kubernetes-list-map-keys"]
        if not extra:
            return base
        return {**(base if isinstance(base, dict) else {"c": base}), **extra}

    def _encode_shape(self, value: dict[str, Any]) -> Any:
        if "$ref" in value:
            name = value["$ref"].removeprefix("#/definitions/")
            return self._encode_reference(name)
        if value.get("type") == "array":
            return {"l": self._encode(value["items"])}
        if value.get("type") == "object":
            inner = value.get("additionalProperties")
            return {"p": self._encode(inner)} if isinstance(inner, dict) else "a"
        if value.get("format") == "date-time":
            return "t"
        if value.get("format") == "byte":
            return "y"
        return SCALAR_CODES.get(value.get("type", ""), "a")

    def _encode_reference(self, name: str) -> Any:
        if name in SPECIAL:
            return SPECIAL[name]
        definition = self._definitions[name]
        if "properties" not in definition:
            kind = definition.get("type")
            return SCALAR_CODES.get(kind, "a") if kind and kind != "object" else "a"
        self.add(name)
        return {"r": shorten(name)}


def list_resources(discovery: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the served resources of an aggregated discovery document."""
    found = []
    for group in discovery["items"]:
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            if (name, version["version"]) not in SERVED:
                continue
            for resource in version["resources"]:
                if resource["resource"] not in UNSERVED:
                    found.append(_describe(name, version["version"], resource))
    return found


def _describe(group: str, version: str, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "group": group,
        "version": version,
        "plural": resource["resource"],
        "singular": resource["singularResource"],
        "kind": resource["responseKind"]["kind"],
        "namespaced": resource["scope"] == "Namespaced",
        "verbs": sorted(resource["verbs"]),
        "short": resource.get("shortNames", []),
        "categories": resource.get("categories", []),
        "subresources": {
            sub["subresource"]: {
                "kind": sub["responseKind"]["kind"],
                "group": sub["responseKind"].get("group", ""),
                "version": sub["responseKind"].get("version", ""),
                "verbs": sorted(sub["verbs"]),
            }
            for sub in resource.get("subresources", ())
            if sub["subresource"] not in UNSERVED_PARTS
        },
    }


def main(arguments: list[str]) -> None:
    """Read the two documents and write the compact one."""
    swagger, discovery, target = (Path(argument) for argument in arguments)
    compaction = Compaction(json.loads(swagger.read_text("utf-8"))["definitions"])
    groups = json.loads(discovery.read_text("utf-8"))
    core = json.loads((discovery.parent / "api__v1.json").read_text("utf-8"))
    resources = list_legacy(core) + list_resources(groups)
    kinds = {}
    for resource in resources:
        key = f"{resource['group']}/{resource['version']}/{resource['kind']}"
        if key in compaction.kinds:
            compaction.add(compaction.kinds[key])
            kinds[key] = shorten(compaction.kinds[key])
    for key, name in EXTRA_KINDS.items():
        compaction.add(name)
        kinds[key] = shorten(name)
    document = {"kinds": kinds, "resources": resources, "types": compaction.types}
    target.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")


def list_legacy(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the resources of the core group, whose discovery document has the older form."""
    by_name: dict[str, dict[str, Any]] = {}
    for entry in document["resources"]:
        plural, _, subresource = entry["name"].partition("/")
        if plural in UNSERVED or subresource in UNSERVED_PARTS:
            continue
        if not subresource:
            by_name[plural] = {
                "group": "",
                "version": "v1",
                "plural": plural,
                "singular": entry["singularName"],
                "kind": entry["kind"],
                "namespaced": entry["namespaced"],
                "verbs": sorted(entry["verbs"]),
                "short": entry.get("shortNames", []),
                "categories": entry.get("categories", []),
                "subresources": {},
            }
            continue
        by_name[plural]["subresources"][subresource] = {
            "kind": entry["kind"],
            "group": entry.get("group", ""),
            "version": entry.get("version", ""),
            "verbs": sorted(entry["verbs"]),
        }
    return list(by_name.values())


if __name__ == "__main__":
    main(sys.argv[1:])
