"""Reads Kubernetes manifests and configurations from files, directories and standard input.

YAML is read as kubectl reads it, not as PyYAML does: ``010`` is 8, ``1e3`` is a number, ``12:30`` and
``2024-01-01`` are text. Hostile input (deep nesting, alias bombs) is refused, it never exhausts the process.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml

from konverge.errors import UsageError

MAX_DEPTH = 200
"""Levels of nesting: the C parser overflows its stack some 10,000 deeper."""
MAX_NODES = 5_000_000
"""Values in a document once its aliases are written out."""
SUFFIXES = frozenset({".yaml", ".yml", ".json"})
HINT = "reference/cli.md#render"

_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_TRUE = frozenset({"yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"})
_FALSE = frozenset({"no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})


class ManifestLoader(yaml.CSafeLoader):
    """Builds values as kubectl would."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's way to switch its own guesses off


def _construct_plain(loader: ManifestLoader, node: yaml.ScalarNode) -> Any:
    text = str(loader.construct_scalar(node))
    return text if node.style else read_scalar(text)


def _construct_mapping(loader: ManifestLoader, node: yaml.MappingNode) -> dict[str, Any]:
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value == "<<" and not key.style:
            key.tag = "tag:yaml.org,2002:merge"
    loader.flatten_mapping(node)
    return {
        _key(loader.construct_object(key, deep=True)): loader.construct_object(value, deep=True)
        for key, value in node.value
    }


def _construct_sequence(loader: ManifestLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


def _key(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        raise yaml.constructor.ConstructorError(None, None, "a key must be a scalar", None)
    return "null" if value is None else str(value)


ManifestLoader.add_constructor("tag:yaml.org,2002:str", _construct_plain)
ManifestLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
ManifestLoader.add_constructor("tag:yaml.org,2002:seq", _construct_sequence)


def read_scalar(text: str) -> Any:
    """Return the value of a plain scalar."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] not in "+-.0123456789" or len(text) > 400:
        return text
    if _INT.fullmatch(text):
        return _read_int(text.replace("_", ""))
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".n", "n"))
    return text


def _read_int(text: str) -> int | str:
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567"
    try:
        return int(f"{sign}0o{digits[1:]}" if octal else text, 0)
    except ValueError:
        return text


def parse_yaml(text: str, origin: str) -> list[Any]:
    """Return the documents of a YAML text; UsageError where it cannot be read."""
    try:
        _check_depth(text, origin)
        loader = ManifestLoader(text)
        try:
            return list(_read_documents(loader, origin))
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(origin, error) from error


def _check_depth(text: str, origin: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _refused(origin, f"nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _read_documents(loader: ManifestLoader, origin: str) -> Iterator[Any]:
    while loader.check_node():
        node = loader.get_node()
        if node is None:
            continue
        if _count(node, {}, set()) > MAX_NODES:
            raise _refused(origin, f"more than {MAX_NODES} values once its aliases are written out")
        yield loader.construct_document(node)


def _count(node: yaml.Node, known: dict[int, int], open_nodes: set[int]) -> int:
    """Return how many values a node stands for, aliases counted as often as they are used."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_nodes:
        raise yaml.YAMLError("an alias contains itself")
    open_nodes.add(id(node))
    total = 1
    for child in node.value:
        for item in child if isinstance(child, tuple) else (child,):
            total += _count(item, known, open_nodes)
    open_nodes.discard(id(node))
    known[id(node)] = total
    return total


def _refused(origin: str, cause: str) -> UsageError:
    return UsageError(f"{origin} is refused: {cause}", reason="UnreadableFile", hint=HINT)


def _unreadable(origin: str, error: Exception) -> UsageError:
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark is not None else ""
    cause = getattr(error, "problem", None) or type(error).__name__
    return UsageError(f"{origin} cannot be read{place}: {cause}", reason="UnreadableFile", hint=HINT)


def parse_text(content: bytes, origin: str) -> list[Any]:
    """Return the documents of a JSON or YAML text."""
    if content.lstrip()[:1] in (b"{", b"["):
        try:
            return [orjson.loads(content)]
        except orjson.JSONDecodeError:
            pass  # flow-style YAML
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _unreadable(origin, error) from error
    return parse_yaml(text, origin)


def read_documents(path: str) -> list[Any]:
    """Return the documents in a file, in the YAML and JSON files under a directory, or in standard input (``-``)."""
    if path == "-":
        return parse_text(sys.stdin.buffer.read(), "standard input")
    documents: list[Any] = []
    for file in _list_files(Path(path)):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{file} cannot be read: {error.strerror}", reason="UnreadableFile", hint=HINT
            ) from error
        documents += parse_text(content, str(file))
    return documents


def _list_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not path.exists():
        raise UsageError(f"{path} does not exist", reason="UnreadableFile", hint=HINT)
    return [path]


def list_objects(documents: list[Any]) -> list[Any]:
    """Return the Kubernetes objects in documents; lists are taken apart, empty documents dropped."""
    objects: list[Any] = []
    for document in documents:
        if document is None:
            continue
        items = document.get("items") if isinstance(document, dict) else None
        kind = document.get("kind") if isinstance(document, dict) else None
        if isinstance(items, list) and isinstance(kind, str) and kind.endswith("List"):
            objects += [_complete(item, document, kind) for item in items]
        elif isinstance(document, list):
            objects += document
        else:
            objects.append(document)
    return objects


def _complete(item: Any, document: dict[str, Any], kind: str) -> Any:
    """Give a member of a typed list the kind that only the list names."""
    if not isinstance(item, dict) or kind == "List" or "kind" in item:
        return item
    return {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List"), **item}


def is_configuration(documents: list[Any]) -> bool:
    """Tell whether documents are one declarative configuration and no manifests."""
    present = [document for document in documents if document is not None]
    return len(present) == 1 and isinstance(present[0], dict) and "kind" not in present[0]


class _DocumentDumper(yaml.CSafeDumper):
    """Writes a configuration so that every YAML reader gets the same scalars back."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_AMBIGUOUS = frozenset({"y", "Y", "n", "N", "=", "<<"})


def _represent_text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif text in _AMBIGUOUS or (text and not isinstance(read_scalar(text), str)):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_DocumentDumper.add_representer(str, _represent_text)


def dump_yaml(document: Any) -> str:
    """Return a document as YAML with sorted keys."""
    text: str = yaml.dump(
        document, Dumper=_DocumentDumper, sort_keys=True, default_flow_style=False, allow_unicode=True, width=2**20
    )
    return text
