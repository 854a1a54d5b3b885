"""Every recorded answer of a Kong 3.9.3 goes over the wire to the client, which must take it for what it is.

Always the recordings of this directory; with ``KONVERGE_KONG_RECORDINGS=DIR`` also a directory of single exchanges,
one JSON file each: ``request`` {method, path, headers, body, body_md5}, ``response`` {status, headers, body}, and
around a ``POST /config`` the ``configuration_hash_before`` and ``_after``. A long body may be abridged in there.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from kong_recordings import load, make_body

from konverge.errors import Forbidden, KonvergeError
from konverge.kong.admin import AdminClient, StatusClient
from konverge.kong.classifying import predict_hash
from konverge.kong.explaining import find_error
from konverge.kong.outcomes import (
    IdentityRefused,
    PushOutcome,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unchanged,
    Unexpected,
    Unknown,
)
from konverge.model.proxy import ZERO_HASH

OURS = ("application/yaml", "text/yaml")
"""Types under which the hash is the md5 of the body; we send the first."""


def read_folder() -> list[dict[str, Any]]:
    """Return the exchanges of the directory that the environment names, in the form of this directory's."""
    found = []
    for path in sorted(Path(os.environ["KONVERGE_KONG_RECORDINGS"]).glob("*.json")):
        raw = json.loads(path.read_text())
        if isinstance(raw, dict) and "request" in raw and (raw.get("response") or {}).get("status"):
            request, response = raw["request"], raw["response"]
            found.append(
                {
                    "name": path.stem,
                    "method": request["method"],
                    "path": request["path"],
                    "headers": request.get("headers") or {},
                    "body": request.get("body"),
                    "status": response["status"],
                    "response_headers": response["headers"],
                    "response_body": response.get("body") or "",
                    "before": raw.get("configuration_hash_before"),
                    "after": raw.get("configuration_hash_after"),
                    "md5": request.get("body_md5"),
                }
            )
    return found


def gather() -> list[dict[str, Any]]:
    return [exchange for group in "abcdehiklm" for exchange in load(group)]


class Replay:
    """Answers each request with what Kong answered, and ``GET /status`` after a push with the hash it had then."""

    def __init__(self, exchange: dict[str, Any], nested: dict[str, Any] | None) -> None:
        self.exchange, self.nested = exchange, nested
        self.posts = 0
        self.server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self.server is not None
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                if "100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                if "content-length: " in head:
                    await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
                writer.write(self._answer(head))
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client is done
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    def _answer(self, head: str) -> bytes:
        if head.startswith("post /config"):
            self.posts += 1
            return encode(self.nested if self.nested and "flatten" not in head else self.exchange)
        if head.startswith("get /status ") and self.exchange["method"] == "POST":
            body = b'{"configuration_hash":"%b"}' % str(self.exchange.get("after") or ZERO_HASH).encode()
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        return encode(self.exchange)


def body_of(exchange: dict[str, Any]) -> bytes:
    body = exchange.get("response_body")
    return (body if isinstance(body, str) else json.dumps(body or "")).encode() if body else b""


def encode(exchange: dict[str, Any]) -> bytes:
    body = body_of(exchange)
    dropped = ("content-length", "transfer-encoding", "connection")
    lines = [f"{name}: {value}" for name, value in exchange["response_headers"] if name.lower() not in dropped]
    head = "\r\n".join([f"HTTP/1.1 {exchange['status']} X", *lines, f"Content-Length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + (b"" if exchange["status"] == 304 else body)


async def push(exchange: dict[str, Any], nested: dict[str, Any] | None) -> PushOutcome:
    replay = Replay(exchange, nested)
    async with replay as url, AdminClient(url) as client:
        outcome = await client.push(make_body(exchange) or b"", timeout=20)
    assert replay.posts <= 2
    return outcome


def find_fault(exchange: dict[str, Any], outcome: PushOutcome) -> str:
    """Return what is wrong with an outcome, or nothing; the rules are those of Kong, not of the client."""
    status, content = exchange["status"], make_body(exchange) or b""
    text = body_of(exchange).decode()
    raw = any(k.lower() == "content-type" and v in OURS for k, v in exchange["headers"].items())
    match status:
        case 201:
            good = isinstance(outcome, Stored)
            whole = exchange.get("md5") in (None, predict_hash(content))
            if isinstance(outcome, Stored) and raw and whole and exchange.get("after"):
                good = outcome.hash == exchange["after"]
        case 304:
            good = outcome == Unchanged(predict_hash(content))
        case 400 if "<html>" in text:
            good = isinstance(
                outcome, IdentityRefused if "certificate" in text or "HTTPS port" in text else Unexpected
            )
        case 400 if "expected a declarative" in text or "Cannot parse JSON body" in text:
            good = isinstance(outcome, (Refused, TooLarge))
        case 400:
            good = isinstance(outcome, Refused) and bool(outcome.errors or outcome.document_errors)
        case 413:
            good = outcome == TooLarge(SizeLimit.BODY if "<html>" in text else SizeLimit.LMDB)
        case 415 | 405 | 404:
            good = isinstance(outcome, Unexpected)
        case 500:
            good = isinstance(outcome, Unknown) and outcome.observed == (exchange.get("after") or ZERO_HASH)
        case _:
            good = False
    if status >= 400 and find_error(outcome, "gw-1") is None:
        good = False
    return "" if good else f"{exchange['name']}: HTTP {status} is taken for {outcome!r}"


async def replay_posts(exchanges: list[dict[str, Any]]) -> int:
    posts = [
        e for e in exchanges if e["method"] == "POST" and e["path"].partition("?")[0] == "/config" and e["status"]
    ]
    by_name = {exchange["name"]: exchange for exchange in posts}
    faults = []
    for exchange in posts:
        name = exchange["name"].removesuffix("_flatten")
        # A top-level JSON body loses its cause just so; its raw twin was recorded without flattening.
        nested = by_name.get(f"{name}_noflatten") or by_name.get(f"{name.removesuffix('_json')}_raw_noflatten")
        faults.append(find_fault(exchange, await push(exchange, nested)))
    assert [fault for fault in faults if fault] == []
    return len(posts)


async def replay_reads(exchanges: list[dict[str, Any]]) -> int:
    paths = ("/status", "/status/ready", "/")
    reads = [e for e in exchanges if e["method"] == "GET" and e["path"] in paths and e["status"]]
    faults = []
    for exchange in reads:
        async with Replay(exchange, None) as url, AdminClient(url) as admin, StatusClient(url) as status:
            try:
                match exchange["path"]:
                    case "/status":
                        good = (await admin.status()).hash in body_of(exchange).decode()
                    case "/":
                        good = (await admin.info()).version == "3.9.3" or exchange["status"] != 200
                    case _:
                        good = (await status.ready()).ready == (exchange["status"] == 200)
            except Forbidden as error:
                good = exchange["status"] == 400 and error.reason == "IdentityRefused"
            except KonvergeError:
                good = exchange["status"] in (404, 405)
        faults.append("" if good else exchange["name"])
    assert [fault for fault in faults if fault] == []
    return len(reads)


async def test_recorded_answers_to_a_push() -> None:
    assert await replay_posts(gather()) > 150


async def test_recorded_answers_to_a_read() -> None:
    assert await replay_reads(gather()) > 10


@pytest.mark.skipif(
    "KONVERGE_KONG_RECORDINGS" not in os.environ, reason="KONVERGE_KONG_RECORDINGS names no directory"
)
async def test_recordings_of_a_directory() -> None:
    exchanges = read_folder()
    assert await replay_posts(exchanges) > 0
    assert await replay_reads(exchanges) > 0
