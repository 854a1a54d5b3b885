"""Walks over typed values: which fields are set, what differs, how two values merge, what to remove.

The rules are those of structured merge: scalars and atomic values have one owner, maps and structs one per
field, lists of type map one per item and field, lists of type set one per value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from konverge.lab.apiserver.merging.fieldsets import FieldSet, Path, field_step, key_step, value_step
from konverge.lab.apiserver.schemas import Node
from konverge.lab.apiserver.schemas.nodes import ANY, identify_item


def item_step(node: Node, item: Any) -> str | None:
    """Return the step to an item of a granular list, or None where it has no identity."""
    if node.list_type == "set":
        return value_step(item)
    pairs = identify_item(node, item)
    return key_step(pairs) if pairs is not None else None


def _children(node: Node, value: Any) -> Iterator[tuple[str, Node, Any, bool]] | None:
    """Yield (step, node, value, named) of the parts of a granular value; None for a leaf."""
    if node.leaf:
        return None
    if isinstance(value, dict) and node.kind != "list":
        return ((field_step(key), node.child(key) or ANY, item, _is_named(node, key)) for key, item in value.items())
    if isinstance(value, list) and node.kind == "list":
        element = node.element or ANY
        return ((step, element, item, False) for item in value if (step := item_step(node, item)) is not None)
    return None


def _is_named(node: Node, key: str) -> bool:
    return node.struct is not None and key in node.struct.fields


def collect_fields(node: Node, value: Any) -> FieldSet:
    """Return the paths that an applied configuration claims."""
    found: set[Path] = set()
    _collect(node, value, (), found)
    return frozenset(found)


def _collect(node: Node, value: Any, path: Path, found: set[Path]) -> None:
    children = _children(node, value)
    if children is None:
        if path:
            found.add(path)
        return
    for step, child, item, named in children:
        below = (*path, step)
        _collect(child, item, below, found)
        if item is None or item == {} or not named:
            found.add(below)


def collect_all(node: Node, value: Any, path: Path, found: set[Path]) -> None:
    """Add every path at and below a value, containers included (lists are no members themselves)."""
    children = _children(node, value)
    if children is None or node.kind != "list":
        found.add(path)
    for step, child, item, _ in children or ():
        collect_all(child, item, (*path, step), found)


@dataclass(slots=True)
class Comparison:
    """What differs between two values."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)

    @property
    def written(self) -> set[Path]:
        """Paths that the newer value sets anew or otherwise."""
        return self.added | self.modified


def compare(node: Node, old: Any, new: Any) -> Comparison:
    """Return the differences from ``old`` to ``new``."""
    result = Comparison()
    _compare(node, old, new, (), result)
    return result


def _compare(node: Node, old: Any, new: Any, path: Path, result: Comparison) -> None:
    if old is new or (type(old) is type(new) and old == new):
        return
    before, after = _children(node, old), _children(node, new)
    if before is None or after is None:
        result.modified.add(path)
        if before is not None:
            _collect_below(node, old, path, result.removed)
        if after is not None:
            _collect_below(node, new, path, result.added)
        return
    earlier = {step: (child, item) for step, child, item, _ in before}
    seen = set()
    for step, child, item, _ in after:
        seen.add(step)
        if step in earlier:
            _compare(child, earlier[step][1], item, (*path, step), result)
        else:
            collect_all(child, item, (*path, step), result.added)
    for step, (child, item) in earlier.items():
        if step not in seen:
            collect_all(child, item, (*path, step), result.removed)


def _collect_below(node: Node, value: Any, path: Path, found: set[Path]) -> None:
    for step, child, item, _ in _children(node, value) or ():
        collect_all(child, item, (*path, step), found)


def merge(node: Node, live: Any, applied: Any) -> Any:
    """Return the live value with the applied one laid over it."""
    if node.leaf or type(live) is not type(applied) or not isinstance(applied, (dict, list)):
        return applied
    if isinstance(applied, dict):
        merged = dict(live)
        for key, value in applied.items():
            merged[key] = merge(node.child(key) or ANY, live[key], value) if key in live else value
        return merged
    return _merge_list(node, live, applied) if node.kind == "list" else applied


def _merge_list(node: Node, live: list[Any], applied: list[Any]) -> list[Any]:
    """Merge items by identity: the order of the applied ones holds, others keep their place before them."""
    element = node.element or ANY
    steps = [item_step(node, item) for item in live]
    wanted = {item_step(node, item) for item in applied}
    by_step = dict(zip(steps, live, strict=True))
    result: list[Any] = []
    position = 0
    for item in applied:
        step = item_step(node, item)
        if step in by_step:
            index = steps.index(step)
            while position <= index:
                if steps[position] not in wanted:
                    result.append(live[position])
                position += 1
            result.append(merge(element, by_step[step], item))
        else:
            result.append(item)
    result.extend(live[i] for i in range(position, len(live)) if steps[i] not in wanted)
    return result


def remove_paths(node: Node, value: Any, paths: set[Path]) -> Any:
    """Return the value without the fields and items at ``paths``."""
    if not paths:
        return value
    here: dict[str, set[Path]] = {}
    for path in paths:
        here.setdefault(path[0], set()).add(path[1:])
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            below = here.get(field_step(key))
            if below is None:
                kept[key] = item
            elif () not in below:
                kept[key] = remove_paths(node.child(key) or ANY, item, below)
        return kept
    if isinstance(value, list) and node.kind == "list" and not node.leaf:
        return _remove_items(node, value, here)
    return value


def _remove_items(node: Node, value: list[Any], here: dict[str, set[Path]]) -> list[Any]:
    kept = []
    for item in value:
        below = here.get(item_step(node, item) or "")
        if below is None:
            kept.append(item)
        elif () not in below:
            kept.append(remove_paths(node.element or ANY, item, below))
    return kept
