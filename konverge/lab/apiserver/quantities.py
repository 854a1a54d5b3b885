"""Resource quantities in the one form that the API server writes: ``1000m`` becomes ``1``, ``1024Mi`` ``1Gi``."""

from __future__ import annotations

import re
from decimal import Decimal

QUANTITY = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE]?)|[eE]([+-]?\d+))$")
BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
SUFFIX = {power: suffix for suffix, power in DECIMAL.items()}


def parse_quantity(text: str) -> Decimal:
    """Return the value of a quantity; ValueError where the text is none."""
    match = QUANTITY.match(text)
    if match is None:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, binary, suffix, exponent = match.groups()
    if binary:
        return Decimal(number) * Decimal(1024) ** BINARY.index(binary)
    return Decimal(number).scaleb(int(exponent) if exponent else DECIMAL[suffix or ""])


def canonicalize(text: str) -> str:
    """Return the canonical form: the largest suffix that leaves no fraction, the kind of suffix kept."""
    match = QUANTITY.match(text)
    if match is None:
        raise ValueError(f"unable to parse quantity {text!r}")
    value = parse_quantity(text)
    if match[2] and value == value.to_integral_value() and abs(value) >= 1024:
        return _format_binary(int(value))
    if match[4]:
        return _format_exponent(value)
    return _format_decimal(value)


def _format_binary(value: int) -> str:
    index = 0
    while value and value % 1024 == 0 and index < len(BINARY) - 1:
        value //= 1024
        index += 1
    return f"{value}{BINARY[index]}"


def _format_decimal(value: Decimal) -> str:
    for power in sorted(SUFFIX, reverse=True):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value() and (value or power == 0):
            return f"{int(scaled)}{SUFFIX[power]}"
    return f"{int(value.scaleb(9).to_integral_value(rounding='ROUND_UP'))}n"


def _format_exponent(value: Decimal) -> str:
    for power in range(18, -10, -3):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value() and value:
            return f"{int(scaled)}e{power}" if power else str(int(scaled))
    return "0"
