"""Writes docs/reference/cli.md from the command itself; with --check it only compares."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PAGE = Path("docs/reference/cli.md")
NOTE = "<!-- Generated from the command by `make docs`; do not edit. -->\n"


def build_page() -> str:
    """Return the page: Typer's own Markdown, with an anchor per command."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "cli.md"
        command = [sys.executable, "-m", "typer", "konverge.cli.main", "utils", "docs"]
        command += ["--name", "konverge", "--output", str(target)]
        # Defaults that come from the environment must not depend on where this runs.
        names = ("KUBECONFIG", "KONVERGE_FLEET", "KONVERGE_NAMESPACE")
        environment = {k: v for k, v in os.environ.items() if k not in names}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        text = target.read_text()
    return NOTE + re.sub(r"^(#+ `konverge ([^`]+)`)$", _with_anchor, text, flags=re.MULTILINE).strip() + "\n"


def _with_anchor(heading: re.Match[str]) -> str:
    return f'<a id="{heading[2].replace(" ", "-")}"></a>\n{heading[1]}'


def main() -> int:
    """Write or compare the page."""
    page = build_page()
    if "--check" not in sys.argv:
        PAGE.write_text(page)
        return 0
    if not PAGE.exists() or PAGE.read_text() != page:
        print(f"{PAGE} is stale; run: make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
