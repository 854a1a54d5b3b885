"""Reads Kubernetes quantities (``apimachinery/pkg/api/resource``): 500m, 2Gi, 1e3."""

from __future__ import annotations

import re

from konverge.errors import Invalid

_FACTORS = {
    "": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 1024.0, "Mi": 1024.0**2, "Gi": 1024.0**3, "Ti": 1024.0**4, "Pi": 1024.0**5, "Ei": 1024.0**6,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([a-zA-Z]{0,2})")


def parse_quantity(text: str | float) -> float:
    """Return a quantity as a number; Invalid where it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[2] not in _FACTORS:
        raise Invalid(f"{text!r} is no quantity", reason="BadQuantity")
    try:
        return float(match[1]) * _FACTORS[match[2]]
    except ValueError as error:
        raise Invalid(f"{text!r} is no quantity", reason="BadQuantity") from error
