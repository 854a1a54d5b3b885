"""The part of JSONPath that printer columns use: fields, indexes, wildcards and equality filters."""

from __future__ import annotations

import re
from typing import Any

STEP = re.compile(
    r"\.(?P<field>(?:[\w/-]|\\\.)+)|\[['\"](?P<quoted>[^'\"]+)['\"]\]|\[(?P<index>-?\d+)\]|(?P<all>\[\*\]|\.\*)"
    r"|\[\?\(@(?P<left>(?:\.[\w-]+)+)\s*(?P<op>==|!=)\s*(?:\"(?P<dq>[^\"]*)\"|'(?P<sq>[^']*)'|(?P<word>\w+))\)\]"
)


def find_values(path: str, obj: Any) -> list[Any]:
    """Return all values under a path such as ``.status.conditions[?(@.type=="Ready")].status``."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    values, position = [obj], 0
    while position < len(text):
        match = STEP.match(text, position)
        if match is None:
            return []
        values = [found for value in values for found in _follow(match, value)]
        position = match.end()
    return values


def _follow(match: re.Match[str], value: Any) -> list[Any]:
    name = match["field"] or match["quoted"]
    if name is not None:
        name = name.replace("\\.", ".")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if match["index"] is not None:
        index = int(match["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if match["all"]:
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    return [item for item in value if _passes(match, item)] if isinstance(value, list) else []


def _passes(match: re.Match[str], item: Any) -> bool:
    wanted = next(text for text in (match["dq"], match["sq"], match["word"], "") if text is not None)
    found = find_values(match["left"], item)
    shown = str(found[0]).lower() if found and isinstance(found[0], bool) else str(found[0]) if found else ""
    return (shown == wanted) == (match["op"] == "==")
