"""Which resources are served: the built-in ones and those that custom resource definitions add."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from konverge.lab.apiserver.schemas import Node, find_type
from konverge.lab.apiserver.schemas.types import load_document

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
GENERATED = frozenset(
    {
        "CronJob",
        "CustomResourceDefinition",
        "DaemonSet",
        "Deployment",
        "EndpointSlice",
        "Ingress",
        "IngressClass",
        "Job",
        "MutatingWebhookConfiguration",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PriorityClass",
        "ReplicaSet",
        "ReplicationController",
        "StatefulSet",
        "ValidatingAdmissionPolicy",
        "ValidatingWebhookConfiguration",
    }
)
"""Built-in kinds whose ``metadata.generation`` counts changes of what is desired."""


@dataclass(frozen=True, slots=True)
class Subresource:
    """A part of an object with an address of its own; ``kind`` is what it reads and writes."""

    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(slots=True)
class CustomVersion:
    """What a version of a custom resource definition says beyond names: schema, columns, scale paths."""

    schema: dict[str, Any]
    columns: list[dict[str, Any]]
    scale: dict[str, str] | None
    selectable: tuple[str, ...] = ()
    """Fields that ``selectableFields`` adds to field selectors."""
    validate: Any = None
    """The compiled validator: (object, old object or None) -> causes."""

    def find_unknown(self, obj: dict[str, Any]) -> list[str]:
        """Return the paths of fields that the schema does not have."""
        from konverge.lab.apiserver.custom.pruning import find_unknown

        return find_unknown(self.schema, obj)


@dataclass(slots=True)
class ResourceKind:
    """One served resource of one version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    verbs: tuple[str, ...] = ALL_VERBS
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: dict[str, Subresource] = field(default_factory=dict)
    node: Node | None = None
    custom: CustomVersion | None = None
    list_kind: str = ""
    storage: str = ""
    head: bytes = b""

    def __post_init__(self) -> None:
        self.list_kind = self.list_kind or self.kind + "List"
        self.storage = self.storage or (f"{self.group}/{self.plural}" if self.group else self.plural)
        self.head = f'{{"kind":"{self.kind}","apiVersion":"{self.api_version}"'.encode()

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The resource as messages name it: ``deployments.apps``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def generated(self) -> bool:
        """Whether objects have a generation."""
        return self.custom is not None or self.kind in GENERATED


class Registry:
    """Finds resources by path; custom resources come and go while the server runs."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str, str], ResourceKind] = {}
        self._versions: dict[str, list[str]] = {}
        self.generation = 0
        """Grows with every change; caches of derived documents compare it."""
        for entry in load_document()["resources"]:
            self.add(_decode(entry))

    def add(self, kind: ResourceKind) -> None:
        """Serve a resource."""
        self._kinds[kind.group, kind.version, kind.plural] = kind
        versions = self._versions.setdefault(kind.group, [])
        if kind.version not in versions:
            versions.append(kind.version)
            versions.sort(key=rank_version)
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """Stop serving a resource in all its versions."""
        for key in [key for key in self._kinds if key[0] == group and key[2] == plural]:
            del self._kinds[key]
        left = {version for (g, version, _) in self._kinds if g == group}
        self._versions[group] = [version for version in self._versions.get(group, ()) if version in left]
        if not self._versions[group]:
            del self._versions[group]
        self.generation += 1

    def find(self, group: str, version: str, plural: str) -> ResourceKind | None:
        """Return the resource under a path."""
        return self._kinds.get((group, version, plural))

    def find_stored(self, storage: str) -> ResourceKind:
        """Return the first resource that lives in a collection; KeyError where none does."""
        for candidate in self._kinds.values():
            if candidate.storage == storage:
                return candidate
        raise KeyError(storage)

    def groups(self) -> list[tuple[str, list[str]]]:
        """Return groups with their versions, the preferred first; the core group comes first."""
        return [(group, list(versions)) for group, versions in self._versions.items()]

    def within(self, group: str, version: str) -> list[ResourceKind]:
        """Return the resources of one group version, by name."""
        found = [kind for kind in self._kinds.values() if (kind.group, kind.version) == (group, version)]
        return sorted(found, key=lambda kind: kind.plural)

    def __iter__(self) -> Iterator[ResourceKind]:
        return iter(list(self._kinds.values()))


def rank_version(version: str) -> tuple[int, int, int, str]:
    """Order versions as Kubernetes does: v2, v1, v1beta2, v1beta1, v1alpha1, then the rest by name."""
    text = version.removeprefix("v")
    for stage, word in ((1, "beta"), (2, "alpha")):
        major, found, minor = text.partition(word)
        if found and major.isdigit() and minor.isdigit():
            return (stage, -int(major), -int(minor), version)
    return (0, -int(text), 0, version) if text.isdigit() else (3, 0, 0, version)


def _decode(entry: dict[str, Any]) -> ResourceKind:
    subresources = {
        name: Subresource(sub["kind"], tuple(sub["verbs"]), sub["group"], sub["version"])
        for name, sub in entry["subresources"].items()
    }
    shared = "events" if entry["group"] == "events.k8s.io" else ""
    return ResourceKind(
        entry["group"],
        entry["version"],
        entry["plural"],
        entry["singular"],
        entry["kind"],
        entry["namespaced"],
        tuple(entry["verbs"]),
        tuple(entry["short"]),
        tuple(entry["categories"]),
        subresources,
        find_type(entry["group"], entry["version"], entry["kind"]),
        storage=shared,
    )
