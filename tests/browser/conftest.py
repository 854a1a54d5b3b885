"""A headless Chromium for the tests of pages; skipped with its name where it is not installed.

With KONVERGE_PICTURES set to a directory the pictures are kept there (docs/images), else they go to build/pictures.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from devtools import Browser, find_chromium, run_browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def chromium() -> str:
    program = find_chromium()
    if program is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    return program


@pytest_asyncio.fixture
async def browser(chromium: str, tmp_path: Path) -> AsyncIterator[Browser]:
    async with run_browser(chromium, tmp_path / "profile") as running:
        yield running


@pytest.fixture
def pictures() -> Path:
    return Path(os.environ.get("KONVERGE_PICTURES") or ROOT / "build" / "pictures")
