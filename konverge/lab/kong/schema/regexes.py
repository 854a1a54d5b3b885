"""Regular expressions of routes: PCRE in Kong, ``re`` here, with PCRE's words for what is wrong."""

from __future__ import annotations

import re
from functools import lru_cache

NAMED_GROUP = re.compile(r"\(\?<(?![=!])")

WORDS = (
    ("missing ), unterminated subpattern", "missing closing parenthesis"),
    ("unbalanced parenthesis", "unmatched closing parenthesis"),
    ("unterminated character set", "missing terminating ] for character class"),
    ("nothing to repeat", "quantifier does not follow a repeatable item"),
    ("multiple repeat", "quantifier does not follow a repeatable item"),
    ("bad character range", "range out of order in character class"),
    ("bad escape (end of pattern)", "\\ at end of pattern"),
    ("bad escape", "unrecognized character follows \\"),
    ("min repeat greater than max repeat", "numbers out of order in {} quantifier"),
)
"""Python's message, PCRE2's message (``pcre2_error.c``)."""


def to_python(pattern: str) -> str:
    """Translate the PCRE syntax that Python spells differently: named groups."""
    return NAMED_GROUP.sub("(?P<", pattern)


@lru_cache(maxsize=65536)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of a route, anchored at the start. Raises re.error."""
    return re.compile(to_python(pattern), re.DOTALL)


def compile_problem(pattern: str) -> str | None:
    """Return what nginx says about a broken pattern, None for a good one."""
    try:
        compile_pattern(pattern)
    except re.error as error:
        text = next((ours for theirs, ours in WORDS if error.msg.startswith(theirs)), error.msg)
        offset = len(pattern) if "closing parenthesis" in text and "missing" in text else error.pos
        if "terminating" in text:
            offset = len(pattern)
        where = f'in "{pattern}"'
        if offset is not None and offset < len(pattern):
            where += f' at "{pattern[offset:]}"'
        return f"pcre2_compile() failed: {text} {where}"
    return None
