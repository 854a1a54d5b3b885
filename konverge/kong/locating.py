"""Finds the Kubernetes object behind an entity of a declarative document; no I/O.

An entity is tagged with the object that it was rendered from (``k8s-name:``, ``k8s-namespace:``, ``k8s-kind:``,
``k8s-uid:`` and so on, as Kong's ingress controller does). Targets, credentials and some plugins carry no tags:
then the nearest tagged entity around them counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from konverge.model.condition import ObjectRef

Entity = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Node:
    kind: str
    entity: Entity
    reference: ObjectRef | None


def find_reference(tags: Iterable[str]) -> ObjectRef | None:
    """Return the object that tags name, or None where they name none."""
    values = {key: value for key, _, value in (str(tag).partition(":") for tag in tags) if key.startswith("k8s-")}
    kind, name = values.get("k8s-kind", ""), values.get("k8s-name", "")
    if not kind or not name:
        return None
    return ObjectRef(kind=kind, name=name, namespace=values.get("k8s-namespace", ""), uid=values.get("k8s-uid", ""))


class Locator:
    """Searches one document; it is parsed on the first question only, as most answers carry tags."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @cached_property
    def _document(self) -> Entity:
        try:
            document = orjson.loads(self._content) if self._content else {}
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}

    @cached_property
    def _nodes(self) -> dict[str, list[_Node]]:
        nodes: dict[str, list[_Node]] = {}
        for node in _walk(self._document, None):
            nodes.setdefault(node.kind, []).append(node)
        return nodes

    def find_entity(self, entity_type: str, echo: Entity, duplicate: bool = False) -> ObjectRef | None:
        """Return the object of the entity that Kong echoes; None unless all candidates agree.

        ``duplicate``: of several candidates the last is meant, as Kong complains about the later declaration.
        """
        candidates = self._nodes.get(_plural(entity_type), [])
        identifier = echo.get("id")
        same = [n for n in candidates if identifier and n.entity.get("id") == identifier]
        same = same or [n for n in candidates if _is_echoed(n.entity, echo)]
        references = list(dict.fromkeys(n.reference for n in same))
        return references[-1] if references and (duplicate or len(references) == 1) else None

    def find_by_field(self, kind: str, field: str, value: str) -> tuple[ObjectRef, ...]:
        """Return the objects of all entities of a kind whose field has this value."""
        nodes = [n for n in self._nodes.get(kind, []) if str(n.entity.get(field)) == value]
        return tuple(dict.fromkeys(n.reference for n in nodes if n.reference))

    def find_at(self, path: tuple[str | int, ...]) -> tuple[ObjectRef, ...]:
        """Return the object at a path; a string below a kind is the name or id of an entity of that kind."""
        if len(path) > 1 and isinstance(path[1], str):
            return tuple(dict.fromkeys(r for field in ("name", "id", "username") for r in self._named(path, field)))
        reference = None
        node: Any = self._document
        for part in path:
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(node, dict):
                reference = find_reference(node.get("tags") or ()) or reference
        return (reference,) if reference else ()

    def _named(self, path: tuple[str | int, ...], field: str) -> tuple[ObjectRef, ...]:
        return self.find_by_field(str(path[0]), field, str(path[1]))


def _walk(parent: Entity, reference: ObjectRef | None) -> Iterator[_Node]:
    for kind, children in parent.items():
        if not isinstance(children, list):
            continue
        for child in children:
            if isinstance(child, dict):
                own = find_reference(child.get("tags") or ()) or reference
                yield _Node(kind, child, own)
                yield from _walk(child, own)


def _is_echoed(entity: Entity, echo: Entity) -> bool:
    """Whether an echo shows this entity: all its plain fields are equal; nested entities are left out of echoes."""
    plain = {key: value for key, value in entity.items() if not _is_nested(value)}
    return bool(plain) and all(key in echo and echo[key] == value for key, value in plain.items())


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(member, dict) for member in value)


def _plural(entity_type: str) -> str:
    return entity_type if entity_type.endswith("s") else entity_type + "s"
