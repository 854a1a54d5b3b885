"""The result of a translation: the document, its canonical bytes, its hash, and the problems."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import orjson

from konverge.translate.entities import Entry
from konverge.translate.problems import Problem

FORMAT_VERSION = "3.0"

STUB_UPSTREAM = {"name": "kong"}
"""Kong never becomes ready on a configuration without any entity."""


class Rendered:
    """One revision of the configuration. Neither it nor what it shows may be changed."""

    def __init__(self, lists: Mapping[str, tuple[tuple[Entry, ...], bytes]], problems: tuple[Problem, ...]) -> None:
        self._lists = {name: lists[name] for name in sorted(lists)}
        self.problems = problems

    @cached_property
    def document(self) -> dict[str, Any]:
        """The document; lists are in the order in which the ingress controller sends them."""
        document: dict[str, Any] = {
            name: [entry.data for entry in entries] for name, (entries, _) in self._lists.items()
        }
        document["_format_version"] = FORMAT_VERSION
        return {name: document[name] for name in sorted(document)}

    @cached_property
    def content(self) -> bytes:
        """The canonical bytes: compact JSON with sorted keys. To be sent as ``application/yaml``."""
        pieces: list[bytes] = []
        for name in sorted((*self._lists, "_format_version")):
            pieces += (b"," if pieces else b"{", orjson.dumps(name), b":")
            if name == "_format_version":
                pieces.append(orjson.dumps(FORMAT_VERSION))
            else:
                pieces += (b"[", self._lists[name][1], b"]")
        pieces.append(b"}")
        return b"".join(pieces)

    @cached_property
    def hash(self) -> str:
        """Kong's ``configuration_hash`` once these bytes are loaded: their md5 in hexadecimal."""
        return hashlib.md5(self.content, usedforsecurity=False).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """How many entities each list has."""
        return {name: len(entries) for name, (entries, _) in self._lists.items()}

    def add_entity(self, name: str, data: dict[str, Any]) -> Rendered:
        """Return the same configuration with one more entity at the end of a list; nothing else is serialised."""
        entry = Entry((), data)
        entries, content = self._lists.get(name, ((), b""))
        joined = content + b"," + entry.content if content else entry.content
        return Rendered({**self._lists, name: ((*entries, entry), joined)}, self.problems)

    def equals(self, other: Rendered) -> bool:
        """Tell whether both come to the same bytes; cheap where they share most of their lists."""
        # Bytes that are one object are equal at once: what was not translated again is not compared.
        return self._lists.keys() == other._lists.keys() and all(
            content == other._lists[name][1] for name, (_, content) in self._lists.items()
        )

    def __repr__(self) -> str:
        return f"Rendered({self.counts}, problems={len(self.problems)})"
