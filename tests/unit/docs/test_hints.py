"""Every hint that the code gives leads to a page and a heading that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HINT = re.compile(r"""["']((?:reference|howto|explanation|tutorial)/[a-z0-9/.-]+\.md)(?:#([a-z0-9-]+))?["']""")
LINK = re.compile(r"\]\(([^)#:\s]+)?(?:#([^)\s]+))?\)")


def find_anchors(page: Path) -> set[str]:
    text = page.read_text()
    headings = re.findall(r"^#+\s+(.*)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).strip().replace(" ", "-") for h in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


def find_hints() -> list[tuple[str, str, str]]:
    sources = [p for root in ("konverge", "flows", "tasks") for p in (ROOT / root).rglob("*.py")]
    return sorted({(m[0], m[1], p.name) for p in sources for m in HINT.findall(p.read_text())})


@pytest.mark.parametrize(("page", "anchor", "source"), find_hints())
def test_a_hint_leads_somewhere(page: str, anchor: str, source: str) -> None:
    target = ROOT / "docs" / page
    assert target.exists(), f"{source} points at {page}, which does not exist"
    if anchor:
        assert anchor in find_anchors(target), f"{source} points at {page}#{anchor}, which has no such heading"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_link_in_the_docs_leads_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path) if path else page
        assert target.exists(), f"{page} links to {path}"
        if anchor and target.suffix == ".md":
            assert anchor in find_anchors(target), f"{page} links to {path}#{anchor}"
