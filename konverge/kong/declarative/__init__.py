"""The declarative configuration as bytes, as a redacted text, and as something that can be compared.

Two configurations are compared by what Kong would make of them: nesting, order of sets, defaults of schemas and
the ways to write a reference do not count.
"""

from konverge.kong.declarative.attributing import attribute_changes, describe_change
from konverge.kong.declarative.canonical import digest, serialise
from konverge.kong.declarative.comparing import Difference, compare
from konverge.kong.declarative.flattening import Configuration, drop_marker, flatten
from konverge.kong.declarative.reading import read_entities
from konverge.kong.declarative.redaction import redact

__all__ = [
    "Configuration",
    "Difference",
    "attribute_changes",
    "compare",
    "describe_change",
    "digest",
    "drop_marker",
    "flatten",
    "read_entities",
    "redact",
    "serialise",
]
