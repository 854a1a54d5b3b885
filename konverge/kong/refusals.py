"""Reads why Kong refused a configuration, without keeping anything secret of what it echoes; no I/O.

With ``flatten_errors`` Kong names each wrong entity and echoes it as it was sent, credentials and keys
included; an empty list of them is the object ``{}``. Duplicates and faults of the whole document stay in
``fields``, nested as the document is, with a null for every good entity before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson

from konverge.kong.locating import Locator, find_reference
from konverge.kong.outcomes import DocumentError, EntityError, FieldError, Refused
from konverge.model.condition import ObjectRef

LONGEST = 500
"""Characters of one message that are kept."""
MASK = "***"
SECRET_FIELDS = frozenset(
    {
        "access_token",
        "api_key",
        "apikey",
        "auth_code",
        "authorization",
        "authorization_code",
        "cert_key",
        "client_secret",
        "credential",
        "header_value",
        "key",
        "passphrase",
        "password",
        "payload",
        "private_key",
        "refresh_token",
        "secret",
        "session_secret",
        "token",
    }
)
"""Fields whose value is never shown; a superset of Kong's encrypted and referenceable secrets."""
_UNIQUENESS = re.compile(
    r"uniqueness violation: '(?P<kind>[^']*)' entity with (?P<field>\S+) set to '(?P<value>.*)' already declared",
    re.DOTALL,
)
_LIST_KEY = '"flattened_errors":'

Path = tuple[str | int, ...]


def parse_refusal(body: bytes, content: bytes = b"") -> Refused:
    """Return the errors in the body of a 400; what is cut off at its end is left out.

    ``content`` is the configuration that was sent; it is searched for the objects behind errors without tags.
    """
    text = body.decode("utf-8", "replace")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = {"flattened_errors": list(_salvage_entities(text))}
    if not isinstance(document, dict):
        document = {}
    locator = Locator(content)
    flattened = document.get("flattened_errors")
    entities = [e for e in flattened if isinstance(e, dict)] if isinstance(flattened, list) else []
    errors = tuple(_entity_error(entity, locator) for entity in entities)
    return Refused(errors, tuple(_document_errors(document, locator)))


def _salvage_entities(text: str) -> Iterator[Any]:
    """Yield the complete members of ``flattened_errors`` in a JSON text that ends early."""
    start = text.find(_LIST_KEY)
    position = text.find("[", start) + 1 if start >= 0 else 0
    decoder = json.JSONDecoder()
    while position and position < len(text):
        try:
            member, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError:
            return
        yield member
        while position < len(text) and text[position] in ", \n\r\t":
            position += 1


def _entity_error(entry: dict[str, Any], locator: Locator) -> EntityError:
    echo = entry.get("entity")
    echo = echo if isinstance(echo, dict) else {}
    kind = str(entry.get("entity_type", ""))
    tags = tuple(str(tag) for tag in entry.get("entity_tags") or ())
    secrets = sorted(_secrets(echo), key=len, reverse=True)
    errors = tuple(_field_errors(entry, secrets))
    duplicate = any("uniqueness violation" in error.message for error in errors)
    return EntityError(
        entity_type=kind,
        name=str(entry.get("entity_name") or _name(echo)),
        id=str(entry.get("entity_id") or ""),
        errors=errors,
        tags=tags,
        object=find_reference(tags) or locator.find_entity(kind, echo, duplicate),
    )


def _name(echo: dict[str, Any]) -> str:
    return next((str(echo[key]) for key in ("name", "username", "custom_id", "target") if echo.get(key)), "")


def _field_errors(entry: dict[str, Any], secrets: list[str]) -> Iterator[FieldError]:
    for error in entry.get("errors") or ():
        if not isinstance(error, dict):
            continue
        messages = error.get("messages") or [error.get("message", "")]
        for message in messages if isinstance(messages, list) else [messages]:
            yield FieldError(str(error.get("field") or ""), _show(str(message), secrets))


def _document_errors(document: dict[str, Any], locator: Locator) -> Iterator[DocumentError]:
    found = False
    for path, message in walk_messages(document.get("fields")):
        found = True
        yield DocumentError(show_path(path), _show(message, []), _blame(path, message, locator))
    if not found and "fields" not in document and document.get("message"):
        yield DocumentError("", _show(str(document["message"]), []))


def _blame(path: Path, message: str, locator: Locator) -> tuple[ObjectRef, ...]:
    duplicate = _UNIQUENESS.search(message)
    if duplicate:
        named = locator.find_by_field(duplicate["kind"], duplicate["field"], duplicate["value"])
        if named:
            return named
    return locator.find_at(path)


def walk_messages(node: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every message of a ``fields`` tree with the path to it; nulls stand for entities without fault."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from walk_messages(child, (*path, str(key)))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from walk_messages(child, (*path, index))


def show_path(path: Path) -> str:
    """Return ``("routes", 1, "name")`` as ``routes[1].name``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _secrets(node: Any, secret: bool = False) -> set[str]:
    if isinstance(node, dict):
        return {s for k, child in node.items() for s in _secrets(child, secret or k in SECRET_FIELDS)}
    if isinstance(node, list):
        return {s for child in node for s in _secrets(child, secret)}
    return {node} if secret and isinstance(node, str) and node else set()


def _show(message: str, secrets: list[str]) -> str:
    """Mask what must not be shown and cut the rest to a readable length."""

    def mask(match: re.Match[str]) -> str:
        hidden = match["field"].strip("{}").split(",")[0] in SECRET_FIELDS
        return match[0].replace(f"'{match['value']}'", f"'{MASK}'") if hidden else match[0]

    message = _UNIQUENESS.sub(mask, message)
    for value in secrets:
        message = message.replace(value, MASK) if len(value) > 3 else message.replace(f"'{value}'", f"'{MASK}'")
    return message if len(message) <= LONGEST else message[: LONGEST - 1] + "…"
