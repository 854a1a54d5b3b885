"""The process ``python -m konverge.lab.load --plan FILE [--report FILE] [--control FILE|-]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from konverge.errors import KonvergeError, UsageError
from konverge.lab.load.controlling import announce_line, run_plan, write_report
from konverge.lab.load.plan import LoadPlan, read_plan
from konverge.lab.pod import die_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Run a plan; 0 where no request failed, 1 where some did, 2 where the words or the plan are off."""
    options = _parse(arguments)
    if options.die_with_parent:
        die_with_parent()
    try:
        plan = _load(options.plan)
        report = asyncio.run(run_plan(plan, control=options.control, duration=options.duration))
        if options.report:
            write_report(report, Path(options.report))
    except KonvergeError as error:
        announce_line("error", error.triple())
        return 2 if isinstance(error, UsageError) else 1
    announce_line("report", report)
    return 0 if report.clean else 1


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m konverge.lab.load", description=__doc__)
    parser.add_argument("--plan", required=True, help="the plan as JSON, - for standard input")
    parser.add_argument("--report", default="", help="also write the report to this file")
    parser.add_argument("--control", default="", help="read mark, snapshot and stop from this named pipe, or - ")
    parser.add_argument("--duration", type=float, default=None, help="stop after so many seconds")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the starting process ends")
    return parser.parse_args(arguments)


def _load(path: str) -> LoadPlan:
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"--plan {path} cannot be read: {error.strerror}", hint="reference/load.md#plan") from error
    return read_plan(content, f"--plan {path}")


if __name__ == "__main__":
    sys.exit(main())
