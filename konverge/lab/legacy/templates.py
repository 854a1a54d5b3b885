"""Object templates: YAML files of this package with ``$name`` placeholders in their texts.

A text that is nothing but a placeholder becomes the value itself, of whatever JSON type; placeholders inside a
longer text take strings. YAML is read before anything is filled in, so a value never changes the structure.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

import yaml

from konverge.kube.resources import Object


@functools.cache
def _documents(name: str) -> list[Any]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def fill(name: str, values: Mapping[str, Any]) -> list[Object]:
    """Return the objects of the file ``name`` with its placeholders filled; KeyError for an unknown one."""
    return [_fill(document, values) for document in _documents(name)]


def load(name: str) -> Any:
    """Return the content of a YAML file of this package that has no placeholders."""
    return _fill(_documents(name)[0], {})


def _fill(node: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of a node; what YAML aliases share is copied too, so that changing one part changes no other."""
    if isinstance(node, dict):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, values) for value in node]
    if not isinstance(node, str) or "$" not in node:
        return node
    if node[0] == "$" and node[1:].isidentifier():
        return copy.deepcopy(values[node[1:]])
    return Template(node).substitute(values)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated parts out instead of as aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def dump(objects: list[Object]) -> str:
    """Return the objects as one YAML stream that ``kubectl apply -f -`` takes."""
    return yaml.dump_all(objects, Dumper=_PlainDumper, sort_keys=False, explicit_start=True)
