"""Routes with an ``expression`` (ATC language): the fields and operators that Kubernetes controllers generate.

Fields: ``http.path``, ``http.host``, ``http.method``, ``http.headers.*``, ``http.queries.*``, ``tls.sni``,
``net.dst.port``, ``net.port``, ``net.protocol``. Operators: ``==``, ``!=``, ``~``, ``^=``, ``=^``, ``>``, ``>=``,
``<``, ``<=``, ``in``, ``not in``, ``contains``; ``&&``, ``||``, ``!`` and parentheses; ``lower()``, ``any()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from konverge.lab.kong.router.routes import Asked, Entity
from konverge.lab.kong.schema.regexes import compile_pattern

TOKENS = re.compile(
    r"\s*(?:(?P<string>\"(?:[^\"\\]|\\.)*\")|(?P<raw>r#\".*?\"#)|(?P<number>-?\d+(?:\.\d+)*(?:/\d+)?)"
    r"|(?P<op>&&|\|\||==|!=|\^=|=\^|>=|<=|>|<|~|!|\(|\))|(?P<word>[A-Za-z_][\w.\-]*(?:\.\*)?))",
    re.DOTALL,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
Predicate = Callable[[Asked], bool]


class BadExpression(ValueError):
    """The text is no expression."""


@dataclass(slots=True)
class ExpressionEntry:
    """A route with an expression."""

    route: Entity
    service: Entity | None
    priority: int
    matches: Predicate
    prefixes: tuple[str, ...]

    def matched_prefix(self, asked: Asked) -> str | None:
        """Return the longest path prefix of the expression that fits."""
        fitting = [prefix for prefix in self.prefixes if asked.path.startswith(prefix)]
        return max(fitting, key=len, default=None)


def compile_expression(route: Entity, service: Entity | None) -> ExpressionEntry:
    """Compile the expression of a route. Raises BadExpression."""
    parser = Parser(route["expression"])
    predicate = parser.parse()
    protocols = frozenset(route.get("protocols") or ())

    def matches(asked: Asked) -> bool:
        return (not protocols or asked.scheme in protocols or bool(protocols - {"http", "https"})) and predicate(
            asked
        )

    return ExpressionEntry(route, service, route.get("priority") or 0, matches, tuple(parser.prefixes))


class Parser:
    """A recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        self.prefixes: list[str] = []
        position, end = 0, len(text.rstrip())
        while position < end:
            found = TOKENS.match(text, position)
            if found is None or found.lastgroup is None:
                raise BadExpression(f"unexpected {text[position : position + 20]!r}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            position = found.end()

    def parse(self) -> Predicate:
        """Return the predicate. Raises BadExpression."""
        predicate = self._either()
        if self._at != len(self._tokens):
            raise BadExpression(f"unexpected {self._tokens[self._at][1]!r}")
        return predicate

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _accept(self, text: str) -> bool:
        if self._peek() == ("op", text):
            self._at += 1
            return True
        return False

    def _either(self) -> Predicate:
        left = self._both()
        while self._accept("||"):
            left = _either(left, self._both())
        return left

    def _both(self) -> Predicate:
        left = self._one()
        while self._accept("&&"):
            left = _both(left, self._one())
        return left

    def _one(self) -> Predicate:
        if self._accept("!"):
            inner = self._one()
            return lambda asked: not inner(asked)
        if self._accept("("):
            inner = self._either()
            if not self._accept(")"):
                raise BadExpression("missing )")
            return inner
        return self._comparison()

    def _comparison(self) -> Predicate:
        read, lower = self._operand()
        kind, operator = self._next()
        if (kind, operator) == ("word", "not"):
            kind, operator = self._next()
            operator = "not " + operator
        value = self._value()
        if operator == "^=" and isinstance(value, str):
            self.prefixes.append(value)
        compare = _comparison(operator, value)
        if lower:
            return lambda asked: any(compare(_lower(item)) for item in read(asked))
        return lambda asked: any(compare(item) for item in read(asked))

    def _operand(self) -> tuple[Callable[[Asked], list[Any]], bool]:
        kind, name = self._next()
        if kind != "word":
            raise BadExpression(f"expected a field instead of {name!r}")
        if name in ("lower", "any") and self._accept("("):
            read, lower = self._operand()
            if not self._accept(")"):
                raise BadExpression("missing )")
            return read, lower or name == "lower"
        return _reader(name), False

    def _value(self) -> Any:
        kind, text = self._next()
        if kind == "string":
            return re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], "\\" + found[1]), text[1:-1])
        if kind == "raw":
            return text[3:-2]
        if kind == "number":
            return int(text) if text.lstrip("-").isdigit() else text
        raise BadExpression(f"expected a value instead of {text!r}")


def _lower(item: Any) -> Any:
    return item.lower() if isinstance(item, str) else item


def _either(left: Predicate, right: Predicate) -> Predicate:
    return lambda asked: left(asked) or right(asked)


def _both(left: Predicate, right: Predicate) -> Predicate:
    return lambda asked: left(asked) and right(asked)


def _comparison(operator: str, value: Any) -> Callable[[Any], bool]:
    table: dict[str, Callable[[Any], bool]] = {
        "==": lambda item: item == value,
        "!=": lambda item: item != value,
        "^=": lambda item: item.startswith(value),
        "=^": lambda item: item.endswith(value),
        ">": lambda item: item > value,
        ">=": lambda item: item >= value,
        "<": lambda item: item < value,
        "<=": lambda item: item <= value,
        "contains": lambda item: value in item,
        "in": lambda item: item in str(value),
        "not in": lambda item: item not in str(value),
    }
    if operator == "~":
        pattern = compile_pattern(value)
        return lambda item: pattern.search(item) is not None
    if operator not in table:
        raise BadExpression(f"unknown operator {operator!r}")
    return table[operator]


def _reader(name: str) -> Callable[[Asked], list[Any]]:
    if name.startswith("http.headers."):
        header = name[13:].replace("_", "-")
        return lambda asked: asked.headers.get(header, [])
    if name.startswith("http.queries."):
        argument = name[13:]
        return lambda asked: asked.query.get(argument, [])
    readers: dict[str, Callable[[Asked], list[Any]]] = {
        "http.path": lambda asked: [asked.path],
        "http.host": lambda asked: [asked.host],
        "http.method": lambda asked: [asked.method],
        "tls.sni": lambda asked: [asked.sni] if asked.sni else [],
        "net.dst.port": lambda asked: [asked.local_port],
        "net.port": lambda asked: [asked.port],
        "net.protocol": lambda asked: [asked.scheme],
    }
    if name not in readers:
        raise BadExpression(f"unknown field {name!r}")
    return readers[name]
