"""From text to a tree: a lexer and a precedence-climbing parser.

Nodes are tuples: ("lit", value), ("name", text), ("get", node, field), ("index", node, node),
("call", target or None, function, [nodes]), ("list", [nodes]), ("map", [(key, value)]),
("unary", op, node), ("binary", op, left, right), ("cond", test, then, otherwise).
"""

from __future__ import annotations

import re
from typing import Any

from konverge.lab.apiserver.cel.errors import CelError

Tree = tuple[Any, ...]

TOKEN = re.compile(
    r"""\s+|//[^\n]*
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0x[0-9a-fA-F]+u?|\d+u?)
    |(?P<raw>[rR](?:'''(?s:.*?)'''|\"\"\"(?s:.*?)\"\"\"|'[^'\n]*'|"[^"\n]*"))
    |(?P<str>'''(?s:(?:\\.|[^\\])*?)'''|\"\"\"(?s:(?:\\.|[^\\])*?)\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    |(?P<name>[A-Za-z_]\w*)
    |(?P<op>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE,
)
LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|.)", re.DOTALL)
MAX_DEPTH = 100


def parse_expression(text: str) -> Tree:
    """Return the tree of an expression; CelError where it is malformed."""
    parser = _Parser(_tokenize(text))
    tree = parser.expression()
    parser.expect_end()
    return tree


def _tokenize(text: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    position = 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise CelError(f"Syntax error: token recognition error at: '{text[position]}'")
        if match.lastgroup:
            tokens.append(_make_token(match.lastgroup, match.group()))
        position = match.end()
    tokens.append(("end", ""))
    return tokens


def _make_token(group: str, text: str) -> tuple[str, Any]:
    if group == "int":
        return "lit", int(text.rstrip("u"), 0)
    if group == "float":
        return "lit", float(text)
    if group == "raw":
        return "lit", _strip_quotes(text[1:])
    if group == "str":
        return "lit", ESCAPE.sub(_unescape, _strip_quotes(text))
    return group, text


def _strip_quotes(text: str) -> str:
    width = 3 if text[:3] in ("'''", '"""') else 1
    return text[width:-width]


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "uUx" and len(code) > 1:
        return chr(int(code[1:], 16))
    if code.isdigit():
        return chr(int(code, 8))
    return ESCAPES.get(code, code)


class _Parser:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[tuple[str, Any]]) -> None:
        self._tokens = tokens
        self._position = 0
        self._depth = 0

    def expression(self) -> Tree:
        """Parse a conditional."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise CelError("Syntax error: expression is nested too deeply")
        test = self._binary(0)
        if self._accept("?"):
            then = self.expression()
            self._expect(":")
            test = ("cond", test, then, self.expression())
        self._depth -= 1
        return test

    def expect_end(self) -> None:
        """Refuse what is left."""
        kind, text = self._tokens[self._position]
        if kind != "end":
            raise CelError(f"Syntax error: unexpected '{text}'")

    def _peek(self) -> tuple[str, Any]:
        return self._tokens[self._position]

    def _take(self) -> tuple[str, Any]:
        token = self._tokens[self._position]
        self._position += 1
        return token

    def _accept(self, text: str) -> bool:
        kind, value = self._peek()
        if kind in ("op", "name") and value == text:
            self._position += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise CelError(f"Syntax error: expected '{text}' before '{self._peek()[1]}'")

    def _binary(self, level: int) -> Tree:
        if level == len(LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while True:
            kind, value = self._peek()
            if kind not in ("op", "name") or value not in LEVELS[level]:
                return left
            self._take()
            left = ("binary", value, left, self._binary(level + 1))

    def _unary(self) -> Tree:
        for operator in ("!", "-"):
            if self._accept(operator):
                return ("unary", operator, self._unary())
        return self._postfix(self._primary())

    def _postfix(self, node: Tree) -> Tree:
        while True:
            if self._accept("."):
                if self._accept("?"):
                    raise CelError("optional field selection is not supported here")
                kind, name = self._take()
                if kind != "name":
                    raise CelError(f"Syntax error: expected a field name before '{name}'")
                node = (
                    ("call", node, name, self._arguments(")"))
                    if self._accept("(")
                    else ("get", node, _unmangle(name))
                )
            elif self._accept("["):
                index = self.expression()
                self._expect("]")
                node = ("index", node, index)
            else:
                return node

    def _arguments(self, close: str) -> list[Tree]:
        arguments: list[Tree] = []
        while not self._accept(close):
            arguments.append(self.expression())
            if not self._accept(","):
                self._expect(close)
                break
        return arguments

    def _primary(self) -> Tree:
        kind, value = self._take()
        if kind == "lit":
            return ("lit", value)
        if kind == "name":
            if value in CONSTANTS:
                return ("lit", CONSTANTS[value])
            return ("call", None, value, self._arguments(")")) if self._accept("(") else ("name", value)
        if value == "(":
            node = self.expression()
            self._expect(")")
            return node
        if value == "[":
            return ("list", self._arguments("]"))
        if value == "{":
            return self._map()
        raise CelError(f"Syntax error: mismatched input '{value or '<EOF>'}'")

    def _map(self) -> Tree:
        pairs: list[tuple[Tree, Tree]] = []
        while not self._accept("}"):
            key = self.expression()
            self._expect(":")
            pairs.append((key, self.expression()))
            if not self._accept(","):
                self._expect("}")
                break
        return ("map", pairs)


MANGLED = {"__underscores__": "__", "__dot__": ".", "__dash__": "-", "__slash__": "/"}


def _unmangle(name: str) -> str:
    """Return the field that Kubernetes writes with escapes: ``foo__dash__bar`` is ``foo-bar``."""
    if "__" not in name:
        return name
    for code, text in MANGLED.items():
        name = name.replace(code, text)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name
