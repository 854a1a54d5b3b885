"""Rules that tie fields together: written once, held by the API server in CEL and by the models alike.

A rule is a CEL expression for the CustomResourceDefinition and the same condition as a function of the value. Its
message says what is wrong and what to write instead, so that kubectl, the command and the controller speak alike;
a test sends the same examples to both. Fields that may be absent in an object are asked for with ``has()``: the API
server fills in a default only where it is not empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from konverge.model.base import Value


class Rule(NamedTuple):
    """One condition on a value. ``field`` is the camelCase field that is at fault, as in ``fieldPath``."""

    field: str
    expression: str
    message: str
    holds: Callable[[Any], bool]


class Ruled(Value):
    """A value whose class carries rules; they become ``x-kubernetes-validations`` of its schema."""

    RULES: ClassVar[tuple[Rule, ...]] = ()
    TRANSITIONS: ClassVar[tuple[Rule, ...]] = ()
    """Rules about a change: the expression knows ``oldSelf``, ``holds`` gets the pair (old, new)."""

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        for rule in self.RULES:
            if not rule.holds(self):
                raise PydanticCustomError("rule", "{message}", {"message": rule.message, "field": rule.field})
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        rules = [describe_rule(rule) for rule in (*cls.RULES, *cls.TRANSITIONS)]
        return {**schema, "x-kubernetes-validations": rules} if rules else schema


def describe_rule(rule: Rule) -> dict[str, str]:
    """Return a rule as the CustomResourceDefinition has it."""
    described = {"rule": rule.expression, "message": rule.message}
    return described | ({"fieldPath": f".{rule.field}"} if rule.field else {})


def check_transition(old: Ruled, new: Ruled) -> list[tuple[str, str]]:
    """Return (field, message) of every rule about changes that going from one value to another breaks."""
    return [(rule.field, rule.message) for rule in type(new).TRANSITIONS if not rule.holds((old, new))]


def explain_errors(error: ValidationError, root: str = "spec") -> list[tuple[str, str]]:
    """Return (path of the field, what is wrong) for everything that a validation found."""
    return [_explain(found, root) for found in error.errors(include_input=False, include_url=False)]


def _explain(found: ErrorDetails, root: str) -> tuple[str, str]:
    path = root
    for part in found["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    field = (found.get("ctx") or {}).get("field", "")
    return (f"{path}.{field}" if field else path), found["msg"]
