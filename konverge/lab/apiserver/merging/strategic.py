"""Strategic merge patches: lists of objects merge by key, with the directives that kubectl sends.

Directives: ``$patch: delete|replace|merge``, ``$setElementOrder/<list>``, ``$deleteFromPrimitiveList/<list>``
and ``$retainKeys``. Merge keys and strategies come from the types.
"""

from __future__ import annotations

from typing import Any

from konverge.lab.apiserver.schemas import Node
from konverge.lab.apiserver.schemas.nodes import ANY
from konverge.lab.apiserver.statuses import bad_request
from konverge.lab.apiserver.store import copy_json

DIRECTIVE = "$patch"
ORDER = "$setElementOrder/"
DELETE_VALUES = "$deleteFromPrimitiveList/"
RETAIN = "$retainKeys"


def patch_strategic(node: Node, original: Any, patch: Any) -> Any:
    """Return the patched value; 400 for directives that make no sense."""
    if not isinstance(patch, dict):
        raise bad_request("invalid strategic merge patch: expected an object")
    return _patch_map(node, original if isinstance(original, dict) else {}, patch)


def _patch_map(node: Node, original: dict[str, Any], patch: dict[str, Any]) -> Any:
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        return {key: copy_json(value) for key, value in patch.items() if key != DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"unknown patch type: {directive}")
    result = dict(original)
    if RETAIN in patch:
        result = {key: value for key, value in result.items() if key in patch[RETAIN]}
    for key, value in patch.items():
        if key in (DIRECTIVE, RETAIN) or key.startswith(ORDER):
            continue
        if key.startswith(DELETE_VALUES):
            _delete_values(result, key[len(DELETE_VALUES) :], value)
        else:
            _patch_field(node.child(key) or ANY, result, key, value, patch.get(ORDER + key))
    for key, order in patch.items():
        name = key[len(ORDER) :]
        if key.startswith(ORDER) and name not in patch and name in result:
            _order_field(node.child(name) or ANY, result, name, order)
    return result


def _delete_values(result: dict[str, Any], name: str, values: Any) -> None:
    if isinstance(result.get(name), list):
        result[name] = [item for item in result[name] if item not in values]


def _patch_field(node: Node, result: dict[str, Any], key: str, value: Any, order: Any) -> None:
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict) and (node.kind != "list"):
        current = result.get(key)
        if "replace" in node.strategy:
            result[key] = copy_json(value)
        elif value.get(DIRECTIVE) == "delete":
            result.pop(key, None)
        else:
            result[key] = _patch_map(node, current if isinstance(current, dict) else {}, value)
    elif isinstance(value, list) and "merge" in node.strategy:
        current = result.get(key)
        result[key] = _patch_list(node, current if isinstance(current, list) else [], value, order)
    else:
        result[key] = copy_json(value)


def _order_field(node: Node, result: dict[str, Any], name: str, order: list[Any]) -> None:
    if isinstance(result[name], list):
        result[name] = _sort_items(node, result[name], result[name], order)


def _patch_list(node: Node, original: list[Any], patch: list[Any], order: Any) -> list[Any]:
    if any(isinstance(item, dict) and item.get(DIRECTIVE) == "replace" for item in patch):
        return [copy_json(item) for item in patch if not (isinstance(item, dict) and DIRECTIVE in item)]
    if not node.merge_key:
        merged = original + [item for item in patch if item not in original]
    else:
        merged = _merge_by_key(node, original, patch)
    return _sort_items(node, merged, original, order if isinstance(order, list) else patch)


def _merge_by_key(node: Node, original: list[Any], patch: list[Any]) -> list[Any]:
    key = node.merge_key
    element = node.element or ANY
    result = list(original)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        index = next((i for i, have in enumerate(result) if have.get(key) == item[key]), None)
        if item.get(DIRECTIVE) == "delete":
            result = [have for have in result if have.get(key) != item[key]]
        elif index is None:
            result.append(_patch_map(element, {}, item))
        else:
            result[index] = _patch_map(element, result[index], item)
    return result


def _sort_items(node: Node, items: list[Any], live: list[Any], order: list[Any]) -> list[Any]:
    """Put the items that the patch names into its order, and lay the others between them.

    An item that only the server has goes before the first named one that comes later in the live list.
    """
    names = [_name_of(node, entry) for entry in order]
    places = {_name_of(node, item): index for index, item in enumerate(live)}
    named = sorted((i for i in items if _name_of(node, i) in names), key=lambda i: names.index(_name_of(node, i)))
    result: list[Any] = []
    position = 0
    for item in (item for item in items if _name_of(node, item) not in names):
        place = places.get(_name_of(node, item), -1)
        while position < len(named) and places.get(_name_of(node, named[position]), -1) <= place:
            result.append(named[position])
            position += 1
        result.append(item)
    return result + named[position:]


def _name_of(node: Node, item: Any) -> str:
    return repr(item.get(node.merge_key) if isinstance(item, dict) and node.merge_key else item)
