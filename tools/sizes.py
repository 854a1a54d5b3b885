"""Fails where a function is longer than 60 lines or a file longer than 500."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

FUNCTION_CAP = 60
FILE_CAP = 500
ROOTS = ("konverge", "flows", "tasks", "tests", "tools")


def find_oversized(path: Path) -> list[str]:
    """Return one line per function or file that is over its cap."""
    text = path.read_text()
    lines = text.count("\n")
    found = [f"{path}: {lines} lines (cap {FILE_CAP})"] if lines > FILE_CAP else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            length = node.end_lineno - node.lineno + 1
            if length > FUNCTION_CAP:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines (cap {FUNCTION_CAP})")
    return found


def main() -> int:
    """Print what is oversized; 0 when nothing is."""
    files = sorted(p for root in ROOTS for p in Path(root).rglob("*.py"))
    found = [line for path in files for line in find_oversized(path)]
    print("\n".join(found) or f"sizes: {len(files)} files within the caps")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
