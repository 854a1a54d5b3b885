"""What the types of the API look like: fields, merge rules and required fields, for built-in and custom kinds."""

from konverge.lab.apiserver.schemas.nodes import Node, Struct
from konverge.lab.apiserver.schemas.types import find_type, load_types

__all__ = ["Node", "Struct", "find_type", "load_types"]
