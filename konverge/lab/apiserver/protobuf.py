"""Requests in protobuf, as kubectl and helm send them for built-in kinds; answers are JSON, which they accept.

The envelope is ``k8s\\0`` and a ``runtime.Unknown``: type meta (1), the object's bytes (2). Field numbers come from
``schemas/wire.json``, shapes from the nodes. A zero in a field that is not a pointer means "not set".
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from typing import Any

import orjson

from konverge.lab.apiserver.schemas import Node, find_type
from konverge.lab.apiserver.schemas.nodes import Struct
from konverge.lab.apiserver.statuses import bad_request
from konverge.lab.apiserver.store import Object

MEDIA = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZEROS: tuple[Any, ...] = ("", 0, False, {}, None)


@lru_cache(maxsize=1)
def load_numbers() -> dict[str, dict[str, str]]:
    """Return JSON names by field number for every type."""
    table: dict[str, dict[str, str]] = orjson.loads(
        files("konverge.lab.apiserver.schemas").joinpath("wire.json").read_bytes()
    )
    return table


def decode_protobuf(raw: bytes) -> Object:
    """Return the object in an envelope; 400 where it is malformed or of a kind that is not built in."""
    try:
        return _decode_envelope(raw)
    except (IndexError, ValueError, struct.error, UnicodeDecodeError, OverflowError) as error:
        raise bad_request(f"unable to decode protobuf: {error}") from error


def _decode_envelope(raw: bytes) -> Object:
    if not raw.startswith(MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    parts = dict(_fields(raw[len(MAGIC) :]))
    meta = {number: value.decode() for number, value in _fields(parts.get(1, b""))}
    version, kind = meta.get(1, ""), meta.get(2, "")
    group, _, bare = version.rpartition("/")
    node = find_type("", "v1", kind) if kind == "DeleteOptions" else find_type(group, bare, kind)
    if node is None or node.struct is None:
        raise ValueError(f"no kind {kind!r} is registered for version {version!r}")
    return {"apiVersion": version, "kind": kind, **_decode_struct(node.struct, parts.get(2, b""), node.struct.name)}


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Yield (number, value): bytes for length-delimited fields, an unsigned integer else."""
    position = 0
    while position < len(raw):
        tag, position = _varint(raw, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(raw, position)
            yield number, value
        elif wire == 2:
            length, position = _varint(raw, position)
            if position + length > len(raw):
                raise ValueError("unexpected EOF")
            yield number, raw[position : position + length]
            position += length
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            yield number, raw[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire} is not supported")


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = raw[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _decode_struct(shape: Struct, raw: bytes, wire_type: str) -> Object:
    """Decode a message whose JSON fields are those of ``shape``; parts that are inlined share it."""
    numbers = load_numbers().get(wire_type, {})
    result: Object = {}
    for number, value in _fields(raw):
        name = numbers.get(str(number))
        if name is None:
            continue
        if name.startswith("~"):
            result |= _decode_struct(shape, value, name[1:])
            continue
        node = shape.fields.get(name.removesuffix("?"))
        if node is not None:
            _store(result, name, node, value)
    return result


def _store(result: Object, name: str, node: Node, value: Any) -> None:
    key = name.removesuffix("?")
    if node.kind == "list" and node.element is not None:
        result.setdefault(key, []).append(_decode_value(node.element, value))
    elif node.kind == "map" and node.element is not None:
        pair = dict(_fields(value))
        result.setdefault(key, {})[pair.get(1, b"").decode()] = _decode_value(node.element, pair.get(2, b""))
    else:
        decoded = _decode_value(node, value)
        if not (name.endswith("?") and decoded in ZEROS):
            result[key] = decoded


def _decode_value(node: Node, value: Any) -> Any:
    if node.struct is not None:
        return _decode_struct(node.struct, value, node.struct.name)
    if node.kind == "list" and node.element is not None:
        return [_decode_value(node.element, item) for _, item in _fields(value)]
    if node.kind == "any":
        return _decode_raw(value)
    return _decode_scalar(node.kind, value)


def _decode_scalar(kind: str, value: Any) -> Any:
    if kind == "string":
        return value.decode() if value else ""
    if kind == "integer":
        return _signed(value)
    if kind == "boolean":
        return bool(value)
    if kind == "number":
        return struct.unpack("<d", value)[0]
    if kind == "bytes":
        return base64.b64encode(value).decode()
    parts = dict(_fields(value))
    if kind == "quantity":
        return parts.get(1, b"0").decode() or "0"
    if kind == "int-or-string":
        return parts.get(3, b"").decode() if parts.get(1) else _signed(parts.get(2, 0))
    return _decode_time(kind, parts)


def _decode_time(kind: str, parts: dict[int, Any]) -> str | None:
    if not parts:
        return None
    moment = EPOCH + timedelta(seconds=_signed(parts.get(1, 0)), microseconds=parts.get(2, 0) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if kind == "microtime" else "%Y-%m-%dT%H:%M:%SZ")


def _decode_raw(value: Any) -> Any:
    """Decode a value that is JSON inside (RawExtension, FieldsV1)."""
    inner = dict(_fields(value)).get(1, b"")
    return orjson.loads(inner) if inner else None
