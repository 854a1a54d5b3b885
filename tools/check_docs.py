"""Writes docs/reference/checks.md from the registry of checks; ``--check`` fails where the page is old."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from konverge.checks.all import MODULES
from konverge.checks.registry import CHECKS, Check

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "checks.md"
HEAD = """# Checks

`konverge check` looks at the cluster, the Prefect server and every proxy, and changes nothing. `--pre` asks what
matters before a fleet is set up or a release is migrated (`--release NAME`), without it what matters while a fleet
runs. Exit code 3: a check of severity error failed, or what it looks at could not be read; 2 with `--strict`: a
warning; 0: nothing stands in the way. `--only ID` asks one check, `-o json` is for programs.

This page is written from the registry by `make docs`.
"""
STAGES = {"before": "with `--pre`", "after": "without `--pre`", "always": "always"}


def render_page() -> str:
    """Return the page: a section for each category, a heading for each check, which is the anchor of its hint."""
    order = [module.CATEGORY for module in MODULES]
    records = sorted(CHECKS.values(), key=lambda record: order.index(record.category))
    parts = [HEAD, f"There are {len(records)} checks.\n"]
    for category, group in groupby(records, key=lambda record: record.category):
        parts.append(f"## {category}\n")
        parts += [_render_check(record) for record in group]
    return "\n".join(parts).rstrip() + "\n"


def _render_check(record: Check) -> str:
    looked = " ".join((record.look.__doc__ or "").split())
    return (
        f"### {record.id}\n{record.title}. ({record.severity.value}; asked {STAGES[record.stage.value]})\n\n"
        f"Passes when: {looked}\n\nOtherwise: {record.fix}\n"
    )


def main() -> int:
    """Write the page, or with --check compare it; 1 where it is old."""
    text = render_page()
    if "--check" in sys.argv:
        if PAGE.exists() and PAGE.read_text() == text:
            return 0
        print(f"{PAGE.name} is not what the registry says: run make docs", file=sys.stderr)
        return 1
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
