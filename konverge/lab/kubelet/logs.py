"""Log files of containers: one per start, lines stamped in the container runtimes' format.

A line is ``2026-01-02T03:04:05.123456789Z stdout F text``; ``P`` instead of ``F`` marks a part of a longer line.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time_ns

from konverge.errors import NotFound

PART = 16 * 1024
"""Longer lines are written in parts of this size, as containerd does."""
KEPT = 5
"""Log files kept per container, the newest included; ``logs --previous`` needs two."""
KEPT_PODS = 200
"""Pods whose logs are kept after their end, for whoever asks later what happened."""
READ_BLOCK = 256 * 1024


class LogFile:
    """The log of one start of a container; writers append, readers may follow."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._partial: dict[str, bytes] = {}
        self._grown = asyncio.Event()
        self._listeners: list[asyncio.Queue[tuple[str, bytes]]] = []
        self.closed = False

    @contextlib.contextmanager
    def listening(self, queue: asyncio.Queue[tuple[str, bytes]]) -> Iterator[None]:
        """Put (stream, bytes) into ``queue`` as they come; a full queue loses what is new."""
        self._listeners.append(queue)
        try:
            yield
        finally:
            self._listeners.remove(queue)

    def write(self, stream: str, data: bytes) -> None:
        """Append what ``stream`` (stdout or stderr) said; an unfinished line waits for its end."""
        for queue in self._listeners:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait((stream, data))
        *lines, rest = (self._partial.pop(stream, b"") + data).split(b"\n")
        records = [_record(stream, line) for line in lines]
        while len(rest) >= PART:
            records.append(_stamp(stream, b"P", rest[:PART]))
            rest = rest[PART:]
        if rest:
            self._partial[stream] = rest
        self._append(records)

    def close(self) -> None:
        """Write what is unfinished and end the file; followers end too."""
        if not self.closed:
            self._append([_record(stream, rest) for stream, rest in self._partial.items()])
            self.closed = True
            os.close(self._file)
            self._wake()

    def _append(self, records: list[bytes]) -> None:
        if records:
            # A write to the page cache takes microseconds; a thread per line would cost more than it saves.
            os.write(self._file, b"".join(records))
            self._wake()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()

    async def grow(self) -> None:
        """Return when more was written or the file was closed."""
        await self._grown.wait()


def _record(stream: str, line: bytes) -> bytes:
    parts = [line[start : start + PART] for start in range(0, len(line), PART)] or [b""]
    records = [_stamp(stream, b"P", part) for part in parts[:-1]]
    return b"".join([*records, _stamp(stream, b"F", parts[-1])])


def _stamp(stream: str, tag: bytes, text: bytes) -> bytes:
    seconds, nanoseconds = divmod(time_ns(), 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return b"%s.%09dZ %s %s %s\n" % (moment.encode(), nanoseconds, stream.encode(), tag, text)


@dataclass(frozen=True, slots=True)
class LogQuery:
    """What a reader wants; ``tail`` None means everything, ``since`` drops what is older."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit: int | None = None
    stream: str = ""

    @classmethod
    def parse(cls, query: dict[str, str], now: datetime) -> LogQuery:
        """Read the parameters of ``/containerLogs``; ValueError where one is no number or date."""
        since = None
        if "sinceSeconds" in query:
            since = now - timedelta(seconds=int(query["sinceSeconds"]))
        elif "sinceTime" in query:
            since = datetime.fromisoformat(query["sinceTime"])
        stream = query.get("stream", "All").lower()
        return cls(
            follow=query.get("follow") in ("true", "1"),
            timestamps=query.get("timestamps") in ("true", "1"),
            tail=int(query["tailLines"]) if "tailLines" in query else None,
            since=since,
            limit=int(query["limitBytes"]) if "limitBytes" in query else None,
            stream="" if stream == "all" else stream,
        )


async def read_log(path: Path, query: LogQuery, live: LogFile | None = None) -> AsyncGenerator[bytes, None]:
    """Yield the text of a log file; with ``follow`` until ``live`` is closed."""
    left = query.limit if query.limit is not None else -1
    async for block in _blocks(path, query, live):
        part = block if left < 0 else block[:left]
        left -= len(part) if left >= 0 else 0
        if part:
            yield part
        if left == 0:
            return


async def _blocks(path: Path, query: LogQuery, live: LogFile | None) -> AsyncGenerator[bytes, None]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        raise NotFound(f"The log {path.name} cannot be read: {error.strerror}.") from error
    with file:
        if query.tail is not None:
            await asyncio.to_thread(_seek_tail, file.fileno(), query.tail)
        while True:
            data = await asyncio.to_thread(_read_lines, file.fileno())
            if data:
                yield _select(data, query)
                continue
            if not query.follow or live is None or live.closed:
                return
            waiting = asyncio.ensure_future(live.grow())
            if os.fstat(file.fileno()).st_size > os.lseek(file.fileno(), 0, os.SEEK_CUR):
                waiting.cancel()
                continue
            await waiting


def _read_lines(descriptor: int) -> bytes:
    """Read whole lines from where the descriptor stands; a line that is still being written stays."""
    data = os.read(descriptor, READ_BLOCK)
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.lseek(descriptor, end - len(data), os.SEEK_CUR)
    return data[:end]


def _seek_tail(descriptor: int, lines: int) -> None:
    """Place the descriptor before the last ``lines`` lines."""
    position = os.lseek(descriptor, 0, os.SEEK_END)
    wanted = lines + 1
    while position > 0:
        start = max(0, position - READ_BLOCK)
        block = os.pread(descriptor, position - start, start)
        count = block.count(b"\n")
        if count >= wanted:
            cut = len(block)
            for _ in range(wanted):
                cut = block.rfind(b"\n", 0, cut)
            os.lseek(descriptor, start + cut + 1, os.SEEK_SET)
            return
        wanted -= count
        position = start
    os.lseek(descriptor, 0, os.SEEK_SET)


def _select(data: bytes, query: LogQuery) -> bytes:
    chosen = []
    for line in data.splitlines(keepends=True):
        stamp, stream, tag, text = line.split(b" ", 3)
        if query.stream and stream.decode() != query.stream:
            continue
        if query.since is not None and _moment(stamp) < query.since:
            continue
        prefix = stamp + b" " if query.timestamps else b""
        chosen.append(prefix + (text if tag == b"F" else text[:-1]))
    return b"".join(chosen)


def _moment(stamp: bytes) -> datetime:
    return datetime.fromisoformat(stamp[:26].decode() + "+00:00")


def prune_pods(directory: Path, living: set[str]) -> None:
    """Delete the oldest log directories of pods that are gone, so that at most ``KEPT_PODS`` of them stay."""
    gone = [path for path in directory.glob("*") if path.name.rpartition("_")[2] not in living]
    gone.sort(key=lambda path: path.stat().st_mtime)
    for path in gone[:-KEPT_PODS]:
        shutil.rmtree(path, ignore_errors=True)


def prune(directory: Path) -> None:
    """Delete all but the newest log files of a container (files are named by restart number)."""
    files = sorted(directory.glob("*.log"), key=lambda path: int(path.stem))
    for path in files[:-KEPT]:
        path.unlink(missing_ok=True)
