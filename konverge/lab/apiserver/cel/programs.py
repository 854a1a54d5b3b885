"""Compiled expressions and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from konverge.lab.apiserver.cel.errors import CelError
from konverge.lab.apiserver.cel.functions import FUNCTIONS, METHODS, TYPES
from konverge.lab.apiserver.cel.parsing import Tree, parse_expression

MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
Scope = Mapping[str, Any]


class Program:
    """An expression that is ready to be evaluated; ``names`` are the variables it uses."""

    def __init__(self, text: str, tree: Tree) -> None:
        self.text = text
        self._tree = tree
        self.names: set[str] = set()
        _check(tree, self.names)

    def evaluate(self, scope: Scope) -> Any:
        """Return the value; CelError where evaluation fails."""
        try:
            return _evaluate(self._tree, scope)
        except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
            raise CelError(f"no such overload: {error}") from error


@lru_cache(maxsize=2048)
def compile_expression(text: str) -> Program:
    """Compile an expression; CelError where it is malformed or uses an unknown function."""
    if not text.strip():
        raise CelError("Syntax error: empty expression")
    return Program(text, parse_expression(text))


def _check(tree: Any, names: set[str]) -> None:
    """Collect names and refuse unknown functions."""
    if isinstance(tree, list):
        for part in tree:
            _check(part, names)
        return
    if not isinstance(tree, tuple) or not tree:
        return
    if tree[0] == "name":
        names.add(tree[1])
    elif tree[0] == "call":
        _check_call(tree)
    if tree[0] == "lit":
        return
    for part in tree[1:]:
        if isinstance(part, (tuple, list)):
            _check(part, names)


def _check_call(tree: Tree) -> None:
    _, target, name, arguments = tree
    if target is None:
        if name == "has":
            if len(arguments) != 1 or arguments[0][0] not in ("get", "index"):
                raise CelError("invalid argument to has() macro")
        elif name not in FUNCTIONS:
            raise CelError(f"undeclared reference to '{name}' (in container '')")
    elif name in MACROS:
        if len(arguments) < 2 or arguments[0][0] != "name":
            raise CelError(f"argument must be a simple name in {name}()")
    elif name not in METHODS and name not in FUNCTIONS and target != ("name", "optional"):
        raise CelError(f"undeclared reference to '{name}' (in container '')")


def _evaluate(tree: Tree, scope: Scope) -> Any:
    return EVALUATORS[tree[0]](tree, scope)


def _literal(tree: Tree, _scope: Scope) -> Any:
    return tree[1]


def _name(tree: Tree, scope: Scope) -> Any:
    name = tree[1]
    if name in scope:
        return scope[name]
    if name in TYPES:
        return TYPES[name]
    raise CelError(f"undeclared reference to '{name}'")


def _get(tree: Tree, scope: Scope) -> Any:
    value = _evaluate(tree[1], scope)
    if isinstance(value, Mapping) and tree[2] in value:
        return value[tree[2]]
    raise CelError(f"no such key: {tree[2]}")


def _index(tree: Tree, scope: Scope) -> Any:
    value, index = _evaluate(tree[1], scope), _evaluate(tree[2], scope)
    if isinstance(value, Mapping):
        if index in value:
            return value[index]
        raise CelError(f"no such key: {index}")
    if not isinstance(value, list) or isinstance(index, bool) or not isinstance(index, int):
        raise CelError("no such overload: _[_]")
    if not 0 <= index < len(value):
        raise CelError(f"index out of bounds: {index}")
    return value[index]


def _list(tree: Tree, scope: Scope) -> Any:
    return [_evaluate(item, scope) for item in tree[1]]


def _map(tree: Tree, scope: Scope) -> Any:
    return {_evaluate(key, scope): _evaluate(value, scope) for key, value in tree[1]}


def _unary(tree: Tree, scope: Scope) -> Any:
    value = _evaluate(tree[2], scope)
    if tree[1] == "!":
        return not _truth(value)
    return -value


def _conditional(tree: Tree, scope: Scope) -> Any:
    return _evaluate(tree[2] if _truth(_evaluate(tree[1], scope)) else tree[3], scope)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise CelError("no such overload: expected a bool")
    return value


def _binary(tree: Tree, scope: Scope) -> Any:
    operator = tree[1]
    if operator in ("&&", "||"):
        return _logic(tree, scope, decisive=operator == "||")
    left, right = _evaluate(tree[2], scope), _evaluate(tree[3], scope)
    if operator == "==":
        return _equal(left, right)
    if operator == "!=":
        return not _equal(left, right)
    if operator == "in":
        return any(_equal(left, item) for item in right)
    return ARITHMETIC[operator](left, right)


def _logic(tree: Tree, scope: Scope, *, decisive: bool) -> bool:
    return _decide(((tree[2], scope), (tree[3], scope)), decisive=decisive)


def _decide(parts: Iterable[tuple[Tree, Scope]], *, decisive: bool) -> bool:
    """Any part may decide, even where others fail."""
    failure: CelError | None = None
    for part, scope in parts:
        try:
            if _truth(_evaluate(part, scope)) is decisive:
                return decisive
        except CelError as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return not decisive


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return bool(left == right)


def _divide(left: Any, right: Any) -> Any:
    if right == 0 and isinstance(left, int):
        raise CelError("division by zero")
    if isinstance(left, int) and isinstance(right, int):
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


def _modulo(left: int, right: int) -> int:
    if right == 0:
        raise CelError("modulus by zero")
    return left - right * int(_divide(left, right))


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divide,
    "%": _modulo,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}


def _call(tree: Tree, scope: Scope) -> Any:
    _, target, name, arguments = tree
    if target is None:
        if name == "has":
            return _has(arguments[0], scope)
        return FUNCTIONS[name](*[_evaluate(argument, scope) for argument in arguments])
    if target == ("name", "optional"):
        return _evaluate(arguments[0], scope) if arguments else None
    value = _evaluate(target, scope)
    if name in MACROS:
        return _comprehend(name, value, arguments, scope)
    function = METHODS.get(name) or FUNCTIONS[name]
    return function(value, *[_evaluate(argument, scope) for argument in arguments])


def _has(tree: Tree, scope: Scope) -> bool:
    value = _evaluate(tree[1], scope)
    key = tree[2] if tree[0] == "get" else _evaluate(tree[2], scope)
    return isinstance(value, Mapping) and value.get(key) is not None


def _comprehend(name: str, value: Any, arguments: list[Tree], scope: Scope) -> Any:
    if not isinstance(value, (list, Mapping)):
        raise CelError(f"no such overload: {name}")
    variable = arguments[0][1]
    scopes = [{**scope, variable: item} for item in value]
    if name == "map":
        if len(arguments) == 3:
            scopes = [inner for inner in scopes if _truth(_evaluate(arguments[1], inner))]
        return [_evaluate(arguments[-1], inner) for inner in scopes]
    if name == "filter":
        return [inner[variable] for inner in scopes if _truth(_evaluate(arguments[1], inner))]
    if name in ("exists_one", "existsOne"):
        return sum(_truth(_evaluate(arguments[1], inner)) for inner in scopes) == 1
    return _decide(((arguments[1], inner) for inner in scopes), decisive=name == "exists")


EVALUATORS: dict[str, Callable[[Tree, Scope], Any]] = {
    "lit": _literal,
    "name": _name,
    "get": _get,
    "index": _index,
    "list": _list,
    "map": _map,
    "unary": _unary,
    "cond": _conditional,
    "binary": _binary,
    "call": _call,
}
