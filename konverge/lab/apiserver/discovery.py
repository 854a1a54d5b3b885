"""Which groups, versions and resources are served: the older documents and the aggregated one."""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.kinds import Registry, ResourceKind
from konverge.lab.apiserver.state import VERSION
from konverge.lab.apiserver.store import Object

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def wants_aggregated(accept: str) -> str:
    """Return the content type of the aggregated form where the client accepts it, else nothing."""
    for clause in accept.split(","):
        parts = {part.strip() for part in clause.split(";")}
        if {"application/json", "g=apidiscovery.k8s.io", "as=APIGroupDiscoveryList"} <= parts and "v=v2" in parts:
            return AGGREGATED
    return ""


def describe_version() -> Object:
    """Return /version: all fields, and a version that is valid semver."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    return {
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": str(int(minor) - 1),
        "gitVersion": VERSION,
        "gitCommit": "0" * 40,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def list_versions(address: str) -> Object:
    """Return /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def list_groups(registry: Registry) -> Object:
    """Return /apis."""
    groups = [_describe_group(group, versions) for group, versions in registry.groups() if group]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def describe_group(registry: Registry, group: str) -> Object | None:
    """Return /apis/GROUP."""
    versions = dict(registry.groups()).get(group)
    return {"kind": "APIGroup", "apiVersion": "v1", **_describe_group(group, versions)} if versions else None


def _describe_group(group: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {"name": group, "versions": entries, "preferredVersion": entries[0]}


def list_resources(registry: Registry, group: str, version: str) -> Object | None:
    """Return /apis/GROUP/VERSION or /api/v1."""
    kinds = registry.within(group, version)
    if not kinds:
        return None
    name = f"{group}/{version}" if group else version
    resources: list[Object] = []
    for kind in kinds:
        resources.append(_describe_resource(kind))
        for sub, part in sorted(kind.subresources.items()):
            entry: Object = {
                "name": f"{kind.plural}/{sub}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": part.kind,
                "verbs": sorted(part.verbs),
            }
            if part.group and part.group != group:
                entry |= {"group": part.group, "version": part.version}
            resources.append(entry)
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}


def _describe_resource(kind: ResourceKind) -> Object:
    entry: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    return entry


def aggregate(registry: Registry, core: bool) -> Object:
    """Return the APIGroupDiscoveryList of the core group or of all others."""
    items = [
        _aggregate_group(registry, group, versions) for group, versions in registry.groups() if bool(group) != core
    ]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregate_group(registry: Registry, group: str, versions: list[str]) -> Object:
    metadata: Object = {"name": group} if group else {}
    listed = [
        {
            "version": version,
            "resources": [_aggregate_resource(kind) for kind in registry.within(group, version)],
            "freshness": "Current",
        }
        for version in versions
    ]
    return {"metadata": metadata, "versions": listed}


def _aggregate_resource(kind: ResourceKind) -> Object:
    entry: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": sorted(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    if kind.categories:
        entry["categories"] = list(kind.categories)
    if kind.subresources:
        entry["subresources"] = [
            {
                "subresource": name,
                "responseKind": {"group": part.group, "version": part.version, "kind": part.kind},
                "verbs": sorted(part.verbs),
            }
            for name, part in sorted(kind.subresources.items())
        ]
    return entry
