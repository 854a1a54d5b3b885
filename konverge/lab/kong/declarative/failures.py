"""Why a configuration is refused, and how Kong says it."""

from __future__ import annotations

import re
from typing import Any

Errors = dict[Any, Any]

NAME = "invalid declarative configuration"
CODE = 14
IDENTIFIER = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
LUA_WORDS = frozenset(
    (
        "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil",
        "not", "or", "repeat", "return", "then", "true", "until", "while",
    )
)  # fmt: skip


class ParseFailure(Exception):
    """The text is no configuration at all."""


class Crash(Exception):
    """What makes a real Kong answer 500: code that trips over a shape it did not expect."""


class Refusal(Exception):
    """The configuration is refused; ``errors`` is the tree of what is wrong, ``document`` what was sent."""

    def __init__(self, errors: Errors, document: dict[str, Any]) -> None:
        super().__init__("declarative config is invalid")
        self.errors = errors
        self.document = document


def to_json(errors: Any) -> Any:
    """Turn a tree of errors into JSON: positions become arrays with nulls in the holes."""
    if not isinstance(errors, dict):
        return errors
    if errors and all(isinstance(key, int) for key in errors):
        items: list[Any] = [None] * (max(errors) + 1)
        for position, item in errors.items():
            items[position] = to_json(item)
        return items
    return {str(key + 1) if isinstance(key, int) else key: to_json(item) for key, item in errors.items()}


def print_lua(value: Any) -> str:
    """Print a tree of errors like Penlight's ``pretty.write`` on one line."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, dict):
        return str(value)
    parts: list[str] = []
    position = 0
    while position in value:
        parts.append(print_lua(value[position]))
        position += 1
    rest = [key for key in value if not (isinstance(key, int) and key < position)]
    for key in sorted(rest, key=_sort_key):
        parts.append(f"{_print_key(key)}={print_lua(value[key])}")
    return "{" + ",".join(parts) + "}"


def _sort_key(key: Any) -> tuple[int, int, str]:
    return (0, key, "") if isinstance(key, int) else (1, 0, str(key))


def _print_key(key: Any) -> str:
    if isinstance(key, int):
        return f"[{key + 1}]"
    if IDENTIFIER.match(key) and key not in LUA_WORDS:
        return str(key)
    return f"[{print_lua(key)}]"


def describe(errors: Errors) -> dict[str, Any]:
    """Return the 400 body with nested errors."""
    return {
        "code": CODE,
        "name": NAME,
        "fields": to_json(errors),
        "message": f"declarative config is invalid: {print_lua(errors)}",
    }


def describe_parse(message: str) -> dict[str, Any]:
    """Return the 400 body for a text that is no configuration."""
    return describe({"error": f"failed parsing declarative configuration: {message}"})
