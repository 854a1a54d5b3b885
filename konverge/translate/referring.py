"""References to plugins: the annotation, the filters of HTTPRoutes, and the grants that they may need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from konverge.translate.kinds import KINDS, KONG
from konverge.translate.objects import namespace_of, split_list
from konverge.translate.problems import Object, ObjectRef, refer
from konverge.translate.store import Scope

Target = tuple[str, str]
"""What a plugin shall work on: ("service", name), ("route", name), ("consumer", username or custom_id) or
("consumer_group", name)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One object wants one plugin on one Kong entity."""

    namespace: str
    plugin: str
    target: Target
    referrer: ObjectRef

    @property
    def key(self) -> tuple[str, str]:
        """The plugin that is meant: namespace and name."""
        return (self.namespace, self.plugin)


def read_references(
    scope: Scope, kind: str, value: Object, names: str | None, more: Iterable[str], target: Target
) -> list[Reference]:
    """Return the plugin references of an object; those that no grant allows are problems."""
    found = []
    namespace = namespace_of(value)
    ref = refer(kind, value)
    for item in split_list(names):
        owner, colon, name = item.partition(":")
        if not colon:
            found.append(Reference(namespace, item, target, ref))
            continue
        if not owner or not name or name.endswith(":"):
            continue
        if is_granted(scope, owner, KINDS[kind].group, kind, namespace, KONG, "KongPlugin", name):
            found.append(Reference(owner, name, target, ref))
            continue
        message = f"No ReferenceGrant in {owner} lets {ref} use KongPlugin {owner}/{name}: it is ignored."
        scope.report(kind, value, "PluginReferenceNotGranted", message)
    found += [Reference(namespace, name, target, ref) for name in more]
    return found


def is_granted(
    scope: Scope, owner: str, group: str, kind: str, namespace: str, to_group: str, to_kind: str, name: str
) -> bool:
    """Tell whether a ReferenceGrant in ``owner`` allows a reference.

    From objects of (group, kind) in ``namespace`` to the object ``name`` of (to_group, to_kind).
    """
    wanted = (group, kind, namespace)
    for key, grant in scope.find("all", "ReferenceGrant"):
        if key[1] != owner:
            continue
        spec = grant.get("spec") or {}
        if not any(
            (item.get("group") or "", item.get("kind"), item.get("namespace")) == wanted
            for item in spec.get("from") or ()
        ):
            continue
        for item in spec.get("to") or ():
            if (item.get("group") or "", item.get("kind")) == (to_group, to_kind) and item.get("name") in (
                None,
                "",
                name,
            ):
                return True
    return False
