"""Remembers what processes are started with and what temporary files hold, while something runs.

Which keys there are is known afterwards only, and by then most of those processes and files are gone: so everything
that was seen is kept, once each, and searched at the end. What lives for less than PAUSE can be missed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.scanning import Needle, find_in_content, walk

PAUSE = 0.1
LARGEST = 4 * 1024 * 1024


class Sampler:
    """Looks at all processes of this machine, and at the files below some directories, until the block ends."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._seen: dict[bytes, tuple[str, bytes]] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler")

    async def __aenter__(self) -> Self:
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await asyncio.to_thread(self._thread.join)

    @property
    def count(self) -> int:
        """How many different things were seen."""
        return len(self._seen)

    def find(self, needles: Sequence[Needle]) -> list[str]:
        """Return "place: key" for everything that held a key when it was seen."""
        seen = list(self._seen.values())
        return [f"{place}: {name}" for place, content in seen for name in find_in_content(needles, content)]

    async def until_seen(self, place: str, content: bytes = b"") -> None:
        """Wait until a place was looked at while it held some bytes."""
        async with asyncio.timeout(60):
            while not any(place == p and content in c for p, c in list(self._seen.values())):  # noqa: ASYNC110 - a thread
                await asyncio.sleep(PAUSE)

    def _run(self) -> None:
        while not self._end.is_set():
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    for part in ("cmdline", "environ"):
                        self._note(f"process {process.name} {part}", process / part)
            for path in walk(self._roots):
                self._note(str(path), path)
            self._end.wait(PAUSE)

    def _note(self, place: str, path: Path) -> None:
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST)
        except OSError:
            return  # ended or removed meanwhile, or not ours
        if content:
            self._seen.setdefault(sha256(place.encode() + b"\0" + content).digest(), (place, content))
