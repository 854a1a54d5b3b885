"""Functions and methods of the standard library and of the Kubernetes extensions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from konverge.lab.apiserver.cel.errors import CelError
from konverge.lab.apiserver.quantities import parse_quantity

DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?(?:h|ms|us|ns|m|s))+)")
UNIT = re.compile(r"(\d+(?:\.\d*)?)(h|ms|us|ns|m|s)")
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class Type:
    """A type as a value: the result of ``type(x)``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Type) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


TYPE_NAMES = {
    bool: "bool",
    int: "int",
    float: "double",
    str: "string",
    list: "list",
    dict: "map",
    type(None): "null_type",
}
TYPES = {name: Type(name) for name in (*TYPE_NAMES.values(), "uint", "timestamp", "duration")}


def type_of(value: Any) -> Type:
    """Return the type of a value."""
    return TYPES.get(TYPE_NAMES.get(type(value), ""), Type(type(value).__name__))


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``1h30m``."""
    match = DURATION.fullmatch(text)
    if match is None and text != "0":
        raise CelError(f"invalid duration: {text}")
    total = sum(float(n) * SECONDS[unit] for n, unit in UNIT.findall(text))
    return timedelta(seconds=-total if text.startswith("-") else total)


@lru_cache(maxsize=512)
def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise CelError(f"invalid regular expression: {error}") from error


def _size(value: Any) -> int:
    if isinstance(value, (str, list, dict)):
        return len(value)
    raise CelError("no such overload: size")


def _to_string(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _to_int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise CelError(f"cannot convert to int: {value}") from error


def _to_double(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise CelError(f"cannot convert to double: {value}") from error


def _tries(reader: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        try:
            reader(value)
        except (ValueError, TypeError):
            return False
        return True

    return test


def _read_url(text: str) -> Any:
    parts = urlsplit(text)
    if not parts.scheme and not text.startswith("/"):
        raise CelError(f"not a URL: {text}")
    return parts


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    return bool(parts.scheme and (parts.netloc or parts.path)) or text.startswith("/")


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "size": _size,
    "string": _to_string,
    "int": _to_int,
    "uint": _to_int,
    "double": _to_double,
    "bool": lambda value: value if isinstance(value, bool) else value == "true",
    "type": type_of,
    "dyn": lambda value: value,
    "duration": parse_duration,
    "timestamp": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
    "url": _read_url,
    "isURL": _is_url,
    "ip": ip_address,
    "isIP": _tries(ip_address),
    "cidr": ip_network,
    "isCIDR": _tries(lambda text: ip_network(text, strict=False)),
    "quantity": parse_quantity,
    "isQuantity": _tries(parse_quantity),
    "format": lambda value: value,
}


def _matches(text: str, pattern: str) -> bool:
    return _compile(pattern).search(text) is not None


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in _compile(pattern).finditer(text)]
    return found if limit < 0 else found[:limit]


def _find(text: str, pattern: str) -> str:
    match = _compile(pattern).search(text)
    return match.group() if match else ""


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if not separator:
        return list(text)
    return text.split(separator) if limit < 0 else text.split(separator, limit - 1)


def _index_of(value: Any, item: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return value.find(item, start)
    return value.index(item) if item in value else -1


def _is_sorted(value: list[Any]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(value))


def _format(template: str, values: list[Any]) -> str:
    shown = iter(values)
    return re.sub(r"%[sd]|%\.\d+f|%%", lambda m: "%" if m.group() == "%%" else _to_string(next(shown)), template)


METHODS: dict[str, Callable[..., Any]] = {
    "size": _size,
    "contains": lambda value, part: part in value,
    "startsWith": lambda text, part: text.startswith(part),
    "endsWith": lambda text, part: text.endswith(part),
    "matches": _matches,
    "find": _find,
    "findAll": _find_all,
    "lowerAscii": lambda text: text.lower(),
    "upperAscii": lambda text: text.upper(),
    "trim": lambda text: text.strip(),
    "split": _split,
    "join": lambda value, separator="": separator.join(value),
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "substring": lambda text, start, end=None: text[start:end],
    "indexOf": _index_of,
    "lastIndexOf": lambda text, part: text.rfind(part),
    "charAt": lambda text, index: text[index : index + 1],
    "reverse": lambda value: value[::-1],
    "format": _format,
    "isSorted": _is_sorted,
    "sum": sum,
    "min": min,
    "max": max,
    "distinct": lambda value: [item for index, item in enumerate(value) if item not in value[:index]],
    "sort": sorted,
    "flatten": lambda value: [item for part in value for item in (part if isinstance(part, list) else [part])],
    "getScheme": lambda url: url.scheme,
    "getHost": lambda url: url.netloc,
    "getHostname": lambda url: url.hostname or "",
    "getPort": lambda url: str(url.port or ""),
    "getEscapedPath": lambda url: url.path,
    "family": lambda address: address.version,
    "isLoopback": lambda address: address.is_loopback,
    "isGlobalUnicast": lambda address: not address.is_multicast and not address.is_loopback,
    "containsIP": lambda network, address: ip_address(str(address)) in network,
    "prefixLength": lambda network: network.prefixlen,
    "compareTo": lambda left, right: (left > right) - (left < right),
    "isGreaterThan": lambda left, right: left > right,
    "isLessThan": lambda left, right: left < right,
    "asInteger": int,
    "getSeconds": lambda value: int(value.total_seconds()) if isinstance(value, timedelta) else value.second,
    "getMinutes": lambda value: int(value.total_seconds() // 60) if isinstance(value, timedelta) else value.minute,
    "getHours": lambda value: int(value.total_seconds() // 3600) if isinstance(value, timedelta) else value.hour,
    "getMilliseconds": lambda value: int(value.total_seconds() * 1000),
    "getFullYear": lambda moment: moment.year,
    "hasValue": lambda value: value is not None,
    "value": lambda value: value,
    "orValue": lambda value, other: other if value is None else value,
}
