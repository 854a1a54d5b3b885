"""The custom resource definitions that the legacy controller watches, expanded from a table of kinds.

Unknown fields are kept: the schemas give the defaults that the translation relies on and refuse plain
mistakes; they are no copy of the vendors' schemas.
"""

from __future__ import annotations

from typing import Any

from konverge.kube.resources import Object
from konverge.lab.legacy.templates import load


def kong_crds() -> list[Object]:
    """Return the definitions of Kong's custom kinds and of the Gateway API."""
    return [_expand(group, kind) for group in load("kinds.yaml") for kind in group["kinds"]]


def _expand(group: dict[str, Any], kind: dict[str, Any]) -> Object:
    metadata: dict[str, Any] = {"name": f"{kind['plural']}.{group['group']}"}
    if annotations := group.get("annotations"):
        metadata["annotations"] = annotations
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": group["group"],
            "names": _names(group, kind),
            "scope": kind.get("scope", "Namespaced"),
            "versions": [_version(kind)],
        },
    }


def _names(group: dict[str, Any], kind: dict[str, Any]) -> dict[str, Any]:
    names = {
        "kind": kind["kind"],
        "listKind": f"{kind['kind']}List",
        "plural": kind["plural"],
        "singular": kind["kind"].lower(),
        "categories": group["categories"],
    }
    return names | ({"shortNames": kind["short"]} if "short" in kind else {})


def _version(kind: dict[str, Any]) -> dict[str, Any]:
    schema = kind.get("schema", {})
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    version: dict[str, Any] = {
        "name": kind["version"],
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "x-kubernetes-preserve-unknown-fields": True,
                **schema,
                "properties": properties | schema.get("properties", {}),
            }
        },
    }
    if columns := kind.get("columns"):
        version["additionalPrinterColumns"] = columns
    if kind.get("status", True):
        version["subresources"] = {"status": {}}
    return version
