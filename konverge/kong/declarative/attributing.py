"""Names the Kubernetes objects behind the difference between two configurations, by the tags of the entities.

It says what changed for people, not how: the comparison is exact, defaults are not filled in, nothing is shown of
the entities but the names of their objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from konverge.kong.declarative.flattening import Configuration, Entity, Key, flatten, label
from konverge.kong.marker import TAG

NAMED = 5
"""Objects that a sentence names; the rest is counted."""
_PREFIXES = ("k8s-kind:", "k8s-namespace:", "k8s-name:")


def describe_change(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Return one sentence: which objects were added, changed and removed; "" where only the order differs."""
    if before is None:
        return "the first configuration"
    groups = attribute_changes(before, after)
    return "; ".join(f"{verb}: {_enumerate(names)}" for verb, names in groups.items() if names)


def attribute_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the names of the objects that were ``added``, ``changed`` and ``removed``, each sorted.

    An entity without the tags of an object is named itself. The marker of a revision is no change.
    """
    old, new = flatten(before), flatten(after)
    owned = [_owners(side) for side in (old, new)]
    groups: dict[str, set[str]] = {"added": set(), "changed": set(), "removed": set()}
    for key in old.entities.keys() | new.entities.keys():
        one, other = old.entities.get(key), new.entities.get(key)
        if one != other:
            for entity in (one, other):
                if entity is not None and not _is_marker(entity):
                    name = _owner(key, entity)
                    groups[_verb(name, *owned)].add(name)
    return {verb: sorted(names) for verb, names in groups.items()}


def _owners(side: Configuration) -> frozenset[str]:
    return frozenset(_owner(key, entity) for key, entity in side.entities.items())


def _verb(name: str, old: frozenset[str], new: frozenset[str]) -> str:
    if name not in old:
        return "added"
    return "changed" if name in new else "removed"


def _owner(key: Key, entity: Entity) -> str:
    kind, namespace, name = (_tag(entity, prefix) for prefix in _PREFIXES)
    return f"{kind}/{namespace}/{name}" if kind and name else label(key, entity)


def _tag(entity: Entity, prefix: str) -> str:
    tags = (tag for tag in entity.get("tags") or () if isinstance(tag, str))
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), "")


def _is_marker(entity: Entity) -> bool:
    return TAG in (entity.get("tags") or ())


def _enumerate(names: Iterable[str]) -> str:
    listed = list(names)
    rest = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
