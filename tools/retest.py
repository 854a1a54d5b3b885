"""Runs the files of failed tests once more, alone: a failure that does not repeat itself is named, not hidden.

The tests of a lab drive dozens of processes; on a machine that is short of processor time for a moment one of them
may fail for that. More than a few files, or a second failure, is a failure. Exit code 0, or pytest's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CACHE = Path(".pytest_cache/v/cache/lastfailed")
MOST_FILES = 4


def main() -> int:
    """Run the files again; 1 where there are none, or too many to call it chance."""
    try:
        failed = sorted(json.loads(CACHE.read_text()))
    except (OSError, ValueError):
        failed = []
    files = sorted({name.split("::", 1)[0] for name in failed})
    if not 0 < len(files) <= MOST_FILES:
        print(f"{len(failed)} tests failed in {len(files)} files: they are not run again")
        return 1
    print("Failed, and run once more: " + ", ".join(failed), flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *files], check=False).returncode
    if code == 0:
        print("Passed the second time, so it depends on timing: " + ", ".join(failed))
    return code


if __name__ == "__main__":
    sys.exit(main())
