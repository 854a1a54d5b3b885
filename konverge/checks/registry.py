"""What a check is, what it may answer, and the registry of all of them.

A check is a pure function over a :class:`~konverge.checks.scene.Scene`. What could not be read raises the failure
of the reading, and the check's answer is then Unknown: a check never passes because nobody looked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from konverge.checks.scene import Scene
from konverge.errors import KonvergeError
from konverge.model.base import Value

PAGE = "reference/checks.md"


class Severity(StrEnum):
    """What it means when the check fails."""

    ERROR = "error"
    """The operation will fail or lose requests: refused."""
    WARNING = "warning"
    """It works, but not as well, or not for long."""
    INFO = "info"
    """Good to know."""


class State(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """It does not apply here; the message says why."""
    UNKNOWN = "unknown"
    """What it looks at could not be read; the message says why."""


class Stage(StrEnum):
    """When a check is worth asking."""

    BEFORE = "before"
    """Before a fleet is set up or a release is migrated (``konverge check --pre``)."""
    AFTER = "after"
    """While a fleet runs."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Answer:
    """A state and one sentence that names the objects it speaks of."""

    state: State
    message: str = ""


class NotApplicable(Exception):
    """What a check looks at does not exist here; the message says what. The check is then skipped."""


def passed(message: str = "") -> Answer:
    """Return the answer of a check that found nothing wrong."""
    return Answer(State.PASSED, message)


def failed(message: str) -> Answer:
    """Return the answer of a check that found something."""
    return Answer(State.FAILED, message)


def skipped(message: str) -> Answer:
    """Return the answer of a check that does not apply."""
    return Answer(State.SKIPPED, message)


def failed_if(wrong: Iterable[str], right: str) -> Answer:
    """Return a failure that lists what is wrong, or a pass that says what is right."""
    listed = sorted(wrong)
    return failed("; ".join(listed)) if listed else passed(right)


Look = Callable[[Scene], Answer]


@dataclass(frozen=True, slots=True)
class Check:
    """One record of the registry. ``fix`` says what to do where it fails."""

    id: str
    category: str
    severity: Severity
    stage: Stage
    title: str
    fix: str
    look: Look

    @property
    def hint(self) -> str:
        """The page and anchor in docs/."""
        return f"{PAGE}#{self.id}"


class Result(Value):
    """What a check found; the row that is shown."""

    id: str
    category: str
    severity: Severity
    state: State
    title: str
    message: str
    fix: str = ""
    hint: str = ""

    @property
    def refuses(self) -> bool:
        """Whether the operation should not be begun."""
        return self.severity is Severity.ERROR and self.state in (State.FAILED, State.UNKNOWN)


CHECKS: dict[str, Check] = {}
"""Every check by id, in the order of the modules that declare them."""


def check(
    name: str, category: str, severity: Severity, title: str, *, fix: str, stage: Stage = Stage.ALWAYS
) -> Callable[[Look], Look]:
    """Register a function as the check of that id; ids are stable, they are anchors of the docs."""

    def register(look: Look) -> Look:
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        CHECKS[name] = Check(name, category, severity, stage, title, fix, look)
        return look

    return register


def run_check(record: Check, scene: Scene) -> Result:
    """Ask one check; a reading that failed makes its answer Unknown."""
    try:
        answer = record.look(scene)
    except NotApplicable as missing:
        answer = skipped(str(missing))
    except KonvergeError as error:
        answer = Answer(State.UNKNOWN, f"{error.reason}: {error.message}")
    wrong = answer.state in (State.FAILED, State.UNKNOWN)
    return Result(
        id=record.id,
        category=record.category,
        severity=record.severity,
        state=answer.state,
        title=record.title,
        message=answer.message,
        fix=record.fix if wrong else "",
        hint=record.hint if wrong else "",
    )


def run_checks(records: Iterable[Check], scene: Scene) -> list[Result]:
    """Ask checks in their order."""
    return [run_check(record, scene) for record in records]
