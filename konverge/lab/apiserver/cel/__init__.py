"""A subset of the Common Expression Language, large enough for the rules that Kubernetes schemas carry.

Supported: literals, lists, maps, field access, indexing, all operators, the macros ``has``, ``all``,
``exists``, ``exists_one``, ``map`` and ``filter``, string and list functions, conversions, durations, and the
Kubernetes libraries for URLs, IP addresses and quantities as far as validation rules use them. Not
supported: two-variable comprehensions, ``cel.bind``, protobuf messages, byte strings.
"""

from konverge.lab.apiserver.cel.errors import CelError
from konverge.lab.apiserver.cel.programs import Program, compile_expression

__all__ = ["CelError", "Program", "compile_expression"]
