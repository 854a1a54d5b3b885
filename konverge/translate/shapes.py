"""The shape that an object must have before a rule looks at it: a small checker of nested records.

A check returns nothing when the value fits and raises :class:`Malformed` with the path of the field when it does
not. ``None`` counts as absent, as it does for the API server; fields that no rule reads are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], None]

MAX_INT = 2**31 - 1


class Malformed(ValueError):
    """A field has the wrong type; the message reads ``spec.rules[0].host must be a string``."""

    def __init__(self, path: str, wanted: str) -> None:
        super().__init__(path, wanted)
        self.path = path
        self.wanted = wanted

    def __str__(self) -> str:
        return f"{self.path or 'the object'} must be {self.wanted}"

    def under(self, parent: str) -> Malformed:
        """Return the same complaint, seen from the parent field."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        return Malformed(f"{parent}{joint}{self.path}", self.wanted)


def string(value: Any) -> None:
    """Accept text."""
    if type(value) is not str:
        raise Malformed("", "a string")


def integer(value: Any) -> None:
    """Accept a whole number of 32 bits."""
    if type(value) is not int or not -MAX_INT <= value <= MAX_INT:
        raise Malformed("", "a whole number of 32 bits")


def boolean(value: Any) -> None:
    """Accept true or false."""
    if type(value) is not bool:
        raise Malformed("", "true or false")


def port(value: Any) -> None:
    """Accept what Kubernetes calls an int-or-string."""
    if type(value) is not str:
        integer(value)


def anything(_value: Any) -> None:
    """Accept any JSON value."""


def record(_fields: dict[str, Check] | None = None, /, **more: Check) -> Check:
    """Accept an object whose known fields fit."""
    checks = {**(_fields or {}), **more}
    find = checks.get

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Malformed("", "an object")
        for name, field in value.items():
            inner = find(name)
            if inner is not None and field is not None:
                try:
                    inner(field)
                except Malformed as error:
                    raise error.under(name) from None

    return check


def items(inner: Check) -> Check:
    """Accept a list whose items all fit; null items do not."""

    def check(value: Any) -> None:
        if type(value) is not list:
            raise Malformed("", "a list")
        try:
            for item in value:
                inner(item)
        except Malformed as error:
            raise error.under(f"[{_position(value, item)}]") from None

    return check


def _position(values: list[Any], wanted: Any) -> int:
    return next(index for index, item in enumerate(values) if item is wanted)


def mapping(inner: Check) -> Check:
    """Accept an object with free keys whose values all fit."""

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise Malformed("", "an object")
        for key, item in value.items():
            try:
                inner(item)
            except Malformed as error:
                raise error.under(str(key)) from None

    return check


def texts(value: Any) -> None:
    """Accept an object with text values; the common case of annotations, labels and data, made fast."""
    if type(value) is not dict:
        raise Malformed("", "an object")
    for key, item in value.items():
        if type(item) is not str and item is not None:
            raise Malformed(str(key), "a string")


strings = items(string)
