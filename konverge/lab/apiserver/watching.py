"""Watches: replay from a version, then every change as it is committed, filtered by transitions.

An object that starts to match a selector arrives as ADDED, one that stops matching as DELETED, as in the
real server. A watch that is not read grows a queue; past :data:`MAX_PENDING` it is ended.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable

import orjson
from aiohttp import web

from konverge.lab.apiserver.reading import Selection, read_selection
from konverge.lab.apiserver.representing import Form, encode_entry, negotiate
from konverge.lab.apiserver.requests import Request, parse_version
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import StatusError, bad_request, denied, invalid, too_old
from konverge.lab.apiserver.store import Entry, Event

MAX_PENDING = 20_000
MIN_TIMEOUT = 1800
"""Seconds a watch lives without timeoutSeconds; the real server picks between this and twice as many."""
INITIAL_END = {"k8s.io/initial-events-end": "true"}


class Watch:
    """One running watch."""

    def __init__(self, state: State, request: Request, selection: Selection, form: Form) -> None:
        self.request = request
        self._state = state
        self._selection = selection
        self._form = form
        self._kind = request.need_kind()
        self._pending: deque[bytes] = deque()
        self._held: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.ended = False
        self.aborted = False
        self.version = 0

    def __call__(self, event: Event) -> None:
        """Take a change; called by the store."""
        if self._held or self._state.faults.stalls(self.request):
            self._held.append(event)
            return
        self._take(event)

    def _take(self, event: Event) -> None:
        self.version = event.version
        line = self._encode_event(event)
        if line is None:
            return
        self._pending.append(line)
        if len(self._pending) > MAX_PENDING:
            self.cut()
        self._wake.set()

    def _encode_event(self, event: Event) -> bytes | None:
        now = event.type != "DELETED" and self._selection.matches(event.entry.object)
        before = event.previous is not None and self._selection.matches(event.previous.object)
        if now:
            return self.encode("MODIFIED" if before else "ADDED", event.entry)
        if not before:
            return None
        if event.type == "DELETED":
            return self.encode("DELETED", event.entry)
        return self.encode("DELETED", _stamp_previous(event))

    def encode(self, kind: str, entry: Entry) -> bytes:
        """Return one line of the stream."""
        body = encode_entry(self._form, self._kind, entry, self._state.clock.now().timestamp())
        return b'{"type":"' + kind.encode() + b'","object":' + body + b"}\n"

    def push(self, lines: Iterable[bytes]) -> None:
        """Queue lines that are ready."""
        self._pending.extend(lines)
        self._wake.set()

    def bookmark(self, annotations: dict[str, str] | None = None) -> bytes:
        """Return a BOOKMARK that carries the version up to which everything was sent."""
        metadata: dict[str, object] = {"resourceVersion": str(self.version)}
        if annotations:
            metadata["annotations"] = annotations
        if self._form.style == "partial":
            obj: dict[str, object] = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        elif self._form.style == "table":
            obj = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [], "rows": []}
        else:
            obj = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, **_empty_parts(self._kind.kind)}
        return b'{"type":"BOOKMARK","object":' + orjson.dumps({**obj, "metadata": metadata}) + b"}\n"

    def cut(self) -> None:
        """End in the middle of the stream."""
        self.ended = self.aborted = True
        self._wake.set()

    def close(self) -> None:
        """End properly."""
        self.ended = True
        self._wake.set()

    def release(self) -> None:
        """Deliver what a stall held back."""
        while self._held:
            self._take(self._held.popleft())

    async def next_lines(self, timeout: float) -> bytes:
        """Wait for lines and return them; empty after ``timeout`` seconds."""
        if not self._pending and not self.ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return b""
        lines = b"".join(self._pending)
        self._pending.clear()
        return lines


def _empty_parts(kind: str) -> dict[str, object]:
    return {"spec": {"containers": None}, "status": {}} if kind == "Pod" else {}


def _stamp_previous(event: Event) -> Entry:
    """Return what was there before under the version of the change: it left the selection then."""
    assert event.previous is not None
    obj = {**event.previous.object}
    obj["metadata"] = {**obj["metadata"], "resourceVersion": str(event.version)}
    return Entry(obj, event.version)


def open_watch(state: State, request: Request) -> Watch:
    """Check the request, subscribe, and queue what comes first. An expired version is queued as ERROR."""
    initial = _check_options(request)
    version = parse_version(request)
    watch = Watch(state, request, read_selection(request), negotiate(request))
    collection = state.store.collection(request.need_kind().storage)
    watch.version = state.store.version
    if initial or (initial is None and not version):
        watch.push(watch.encode("ADDED", entry) for entry in _matching(state, request, watch))
        if initial:
            watch.push([watch.bookmark(INITIAL_END)])
    elif version:
        if version < collection.floor and version < state.store.version:
            error = too_old(version, collection.floor)
            watch.push([b'{"type":"ERROR","object":' + orjson.dumps(error.status) + b"}\n"])
            watch.close()
            return watch
        for event in collection.since(version):
            watch(event)
        watch.version = max(version, state.store.version)
    collection.watchers.add(watch)
    return watch


def _matching(state: State, request: Request, watch: Watch) -> list[Entry]:
    entries = state.store.collection(request.need_kind().storage).entries(request.namespace)
    return [entry for entry in entries if watch._selection.matches(entry.object)]


def _check_options(request: Request) -> bool | None:
    """Return whether initial events are asked for; None where the caller does not say."""
    match = request.query.get("resourceVersionMatch", "")
    text = request.query.get("sendInitialEvents", "")
    if not text:
        if match:
            raise _refuse_option(
                request,
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        return None
    if match != "NotOlderThan":
        raise _refuse_option(
            request, "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if request.flag("sendInitialEvents") and not request.flag("allowWatchBookmarks"):
        raise bad_request("sendInitialEvents requires allowWatchBookmarks")
    return request.flag("sendInitialEvents")


def _refuse_option(request: Request, field: str, text: str) -> StatusError:
    error = invalid(request.need_kind(), "", [denied(field, text)])
    error.status["message"] = f'ListOptions.meta.k8s.io "" is invalid: {field}: Forbidden: {text}'
    error.status["details"] |= {"group": "meta.k8s.io", "kind": "ListOptions"}
    return error


async def stream_watch(state: State, request: Request, raw: web.BaseRequest) -> web.StreamResponse:
    """Serve a watch until its time is over, it is cut, or the client is gone."""
    watch = open_watch(state, request)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    response.enable_chunked_encoding()
    state.faults.watches.add(watch)
    state.metrics.begin(request)
    try:
        await response.prepare(raw)
        await _pump(state, request, watch, response)
        if watch.aborted and raw.transport is not None:
            raw.transport.abort()
        else:
            await response.write_eof()
    finally:
        state.store.collection(request.need_kind().storage).watchers.discard(watch)
        state.faults.watches.discard(watch)
        state.metrics.end(request)
    return response


async def _pump(state: State, request: Request, watch: Watch, response: web.StreamResponse) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _lifetime(request)
    bookmarks = request.flag("allowWatchBookmarks")
    while True:
        left = deadline - loop.time()
        lines = await watch.next_lines(max(0.0, min(left, state.settings.bookmark_period)))
        if lines:
            await response.write(lines)
        if watch.ended or loop.time() >= deadline:
            return
        if not lines and bookmarks and not state.faults.stalls(request):
            watch.version = state.store.version
            await response.write(watch.bookmark())


def _lifetime(request: Request) -> float:
    text = request.query.get("timeoutSeconds", "")
    if text and not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return float(text) if text and text != "0" else random.uniform(MIN_TIMEOUT, 2 * MIN_TIMEOUT)
