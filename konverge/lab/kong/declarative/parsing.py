"""From the text of a configuration to a document: JSON is tried first, then YAML."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import orjson

from konverge.lab.kong.declarative.failures import ParseFailure

NOT_A_STRING = (
    "/usr/local/share/lua/5.1/lyaml/init.lua:460: bad argument #1 to 'parser' (must provide a string argument)"
)


def parse_text(text: bytes) -> Any:
    """Return the document of a configuration text. Raises ParseFailure with the words of the YAML library."""
    if not text:
        raise ParseFailure(NOT_A_STRING)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        document = _parse_yaml(text)
    if not isinstance(document, (dict, list)):
        raise ParseFailure("expected an object")
    return document


def _loader() -> Any:
    """Return a safe loader on libyaml that leaves dates alone, as Kong's does."""
    import yaml

    class Loader(yaml.CSafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        key: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
        for key, found in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader


def _parse_yaml(text: bytes) -> Any:
    import yaml

    loader = _loader()
    try:
        # Only the first document of a stream counts.
        return next(iter(yaml.load_all(text, Loader=loader)), None)
    except yaml.YAMLError as error:
        raise ParseFailure(_explain(text, loader, error)) from None
    except (UnicodeDecodeError, RecursionError):
        raise ParseFailure("0:0: invalid leading UTF-8 octet") from None


def _explain(text: bytes, loader: Any, error: Exception) -> str:
    """Say line and column of the last good event, like Kong's YAML binding, and the problem."""
    line, column = next(iter(deque(_walk(text, loader), maxlen=1)), (0, 0))
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "invalid YAML"
    return f"{line}:{column}: {problem}"


def _walk(text: bytes, loader: Any) -> Iterator[tuple[int, int]]:
    import yaml

    try:
        for event in yaml.parse(text, Loader=loader):
            mark: Any = event.start_mark
            yield mark.line + 1, mark.column + 1
    except yaml.YAMLError:
        return
