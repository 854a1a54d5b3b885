"""How objects get into a snapshot: recognised, checked, and made plain JSON."""

from __future__ import annotations

import math
from typing import Any

import orjson

from konverge.translate.kinds import KINDS, Unusable, check_shape, recognise
from konverge.translate.problems import Object, ObjectRef
from konverge.translate.store import Key

FREE_FORM = {
    "KongPlugin": ("config",),
    "KongClusterPlugin": ("config",),
    "KongIngress": ("upstream",),
    "KongVault": ("spec",),
    "KongCustomEntity": ("spec",),
}
"""Fields that may hold any JSON and go into the document as they are."""

EXACT = 2**53
"""The ingress controller and Kong hold numbers as doubles; larger ones lose their last digits there too."""
MAX_WHOLE = 2.0**63
MAX_DEPTH = 100
"""Levels of nesting in an object; the API server's CRDs stay far below."""


def say_who(value: Any) -> ObjectRef:
    """Return the reference of anything, however malformed."""
    if not isinstance(value, dict):
        return ObjectRef("Unknown", "", "")
    metadata = value.get("metadata")
    fields = metadata if isinstance(metadata, dict) else {}
    kind = _text(value.get("kind")) or "Unknown"
    known = KINDS.get(kind)
    namespace = "" if known is not None and not known.namespaced else _text(fields.get("namespace"))
    return ObjectRef(
        kind, namespace, _text(fields.get("name")), _text(fields.get("uid")), _text(value.get("apiVersion"))
    )


def identify(value: Any) -> Key:
    """Return the identity of anything; a kind of another group does not share that of our kind of the same name."""
    who = say_who(value)
    kind = KINDS.get(who.kind)
    group = who.api_version.rpartition("/")[0]
    return who.key if kind is not None and kind.group == group else (f"{who.kind}.{group}", who.namespace, who.name)


def _text(value: Any) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def read_object(value: Any) -> tuple[Key, Object] | None:
    """Return the identity and the object; None where it is of a kind that no rule reads.

    :raises Unusable: the object should have been readable and is not.
    """
    kind = recognise(value)
    if kind is None:
        return None
    plain = _make_plain(value, kind.name)
    check_shape(kind, plain)
    metadata = plain["metadata"]
    namespace = (metadata.get("namespace") or "") if kind.namespaced else ""
    return (kind.name, namespace, metadata["name"]), _fill_null_texts(plain)


def _make_plain(value: Object, kind: str) -> Object:
    """Return an object that is nothing but JSON; the same object where it is already."""
    free = FREE_FORM.get(kind)
    if free is None:
        try:
            orjson.dumps(value)
        except (TypeError, ValueError, RecursionError):
            converted: Object = _convert(value, 0)
            return converted
        return value
    converted = {name: _convert(value[name], 0) for name in free if name in value}
    rest = {name: item for name, item in value.items() if name not in converted}
    plain: Object = {**_make_plain(rest, ""), **converted}
    return plain


def _convert(value: Any, depth: int) -> Any:
    """Return the value as JSON knows it: text without lone surrogates, numbers that Kong can hold."""
    if depth > MAX_DEPTH:
        raise Unusable("Malformed", f"The object is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, dict):
        return {_plain_text(str(key)): _convert(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_convert(item, depth + 1) for item in value]
    if isinstance(value, str):
        return _plain_text(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= EXACT else _round(_float(value))
    if isinstance(value, float):
        return _round(value)
    raise Unusable("Malformed", f"A value of type {type(value).__name__} is no JSON.")


def _plain_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _round(value: float) -> float | int:
    """Return a number as a decoder that only knows doubles writes it: whole ones without a fraction."""
    if not math.isfinite(value):
        raise Unusable("Malformed", "A number is not finite, which JSON cannot express.")
    return int(value) if value.is_integer() and abs(value) < MAX_WHOLE else value


def _fill_null_texts(value: Object) -> Object:
    """Read null annotations, labels and data as empty text, as the API server does."""
    metadata = value["metadata"]
    changed = {}
    for name in ("annotations", "labels"):
        texts = metadata.get(name)
        if texts and None in texts.values():
            changed[name] = {key: text or "" for key, text in texts.items()}
    if changed:
        value = {**value, "metadata": {**metadata, **changed}}
    return value
