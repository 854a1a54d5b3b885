"""``x-kubernetes-validations``: rules in CEL, compiled once and evaluated with ``self`` and ``oldSelf``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from konverge.lab.apiserver.cel import CelError, Program, compile_expression
from konverge.lab.apiserver.statuses import Cause, show_value

REASONS = {
    "FieldValueInvalid": "FieldValueInvalid",
    "FieldValueForbidden": "FieldValueForbidden",
    "FieldValueRequired": "FieldValueRequired",
    "FieldValueDuplicate": "FieldValueDuplicate",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled rule."""

    program: Program
    text: str
    message: str
    message_program: Program | None
    reason: str
    field_path: str
    transition: bool
    optional_old: bool


def compile_rules(rules: Sequence[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """Return (index, text, error) per rule; the error is empty where it compiles."""
    found = []
    for index, rule in enumerate(rules):
        error = ""
        try:
            compile_expression(rule.get("rule") or "")
        except CelError as problem:
            error = str(problem)
        found.append((index, rule.get("rule") or "", error))
    return found


def load_rules(rules: Sequence[dict[str, Any]]) -> list[Rule]:
    """Return the compiled rules of a schema that was checked before."""
    loaded = []
    for rule in rules:
        program = compile_expression(rule["rule"])
        expression = rule.get("messageExpression")
        loaded.append(
            Rule(
                program,
                rule["rule"],
                (rule.get("message") or "").strip(),
                compile_expression(expression) if expression else None,
                REASONS.get(rule.get("reason", ""), "FieldValueInvalid"),
                rule.get("fieldPath", ""),
                "oldSelf" in program.names,
                bool(rule.get("optionalOldSelf")),
            )
        )
    return loaded


def check_rules(rules: Sequence[Rule], value: Any, old: Any, field: str) -> list[Cause]:
    """Return the causes of rules that do not hold; transition rules need an old value."""
    causes = []
    for rule in rules:
        if rule.transition and old is None and not rule.optional_old:
            continue
        context = {"self": value, "oldSelf": old}
        try:
            holds = rule.program.evaluate(context) is True
            text = _explain(rule, context)
        except CelError as error:
            holds, text = False, f"{error} evaluating rule: {rule.message or rule.text}"
        if not holds:
            where = field + rule.field_path if rule.field_path else field
            causes.append(Cause(rule.reason, _phrase(rule.reason, value, text), where))
    return causes


def _explain(rule: Rule, context: dict[str, Any]) -> str:
    if rule.message_program is not None:
        try:
            text = rule.message_program.evaluate(context)
        except CelError:
            text = ""
        if isinstance(text, str) and text.strip():
            return text
    return rule.message or f"failed rule: {rule.text}"


def _phrase(reason: str, value: Any, text: str) -> str:
    if reason == "FieldValueRequired":
        return f"Required value: {text}"
    if reason == "FieldValueForbidden":
        return f"Forbidden: {text}"
    if reason == "FieldValueDuplicate":
        return f"Duplicate value: {show_value(value)}"
    if isinstance(value, (dict, list)):
        return f"Invalid value: {text}"
    return f"Invalid value: {show_value(value)}: {text}"
