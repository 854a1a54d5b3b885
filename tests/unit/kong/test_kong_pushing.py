"""A push ends in one typed outcome, whatever the gateway or the network does."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from scripted_gateway import CLOSE, ScriptedGateway, Seen, answer

from konverge.errors import Busy as BusyError
from konverge.errors import Invalid, RetryableError
from konverge.kong import exchanging
from konverge.kong.admin import AdminClient
from konverge.kong.classifying import predict_hash
from konverge.kong.explaining import explain, find_error
from konverge.kong.outcomes import (
    Busy,
    Exiting,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unchanged,
    Unexpected,
    Unknown,
    Unreachable,
    UnreachableCause,
)

Start = Callable[..., Awaitable[ScriptedGateway]]
CONTENT = b'{"_format_version":"3.0","services":[{"name":"s","host":"h"}]}'
HASH = predict_hash(CONTENT)
EXITING = b'{"message":"Kong currently exiting"}'


def status(digest: str) -> bytes:
    return answer(200, json.dumps({"configuration_hash": digest, "server": {}}).encode())


class Script:
    """Answers posts one after the other, the last one for ever, and the status with a hash."""

    def __init__(self, *posts: Any, digest: str = "0" * 32) -> None:
        self.posts = list(posts)
        self.digest = digest

    def __call__(self, seen: Seen) -> Any:
        if seen.method == "GET":
            return status(self.digest)
        step = self.posts.pop(0) if len(self.posts) > 1 else self.posts[0]
        return step(seen) if callable(step) else step


async def push(gateway: ScriptedGateway, *, warm: bool = False, **options: Any) -> Any:
    async with AdminClient(gateway.url) as client:
        if warm:
            await client.status()
        return await client.push(CONTENT, **options)


async def test_stored_and_what_is_sent(gateways: Start) -> None:
    gateway = await gateways(Script(answer(201, b'{"services":{}}')))
    assert await push(gateway) == Stored(HASH)
    (seen,) = gateway.seen
    assert (seen.method, seen.path) == ("POST", "/config?check_hash=1&flatten_errors=1")
    assert seen.headers["content-type"] == "application/yaml"
    assert seen.headers["content-length"] == str(len(CONTENT))
    assert seen.body == CONTENT
    assert "expect" not in seen.headers


async def test_large_body_is_announced_and_arrives_whole(gateways: Start) -> None:
    gateway = await gateways(Script(answer(201, b"{" + b"x" * 3_000_000)))
    content = b"x" * 2_500_000
    async with AdminClient(gateway.url) as client:
        assert await client.push(content) == Stored(predict_hash(content))
        assert await client.push(content) == Stored(predict_hash(content))
    assert gateway.seen[0].headers["expect"] == "100-continue"
    assert gateway.seen[0].body == content
    assert gateway.connections == 1, "the long 201 was drained, so the connection is used again"


async def test_too_large_is_learnt_before_the_body_is_sent(gateways: Start) -> None:
    page = answer(413, b"<html>", "text/html", Connection="close")
    gateway = await gateways(Script(page), read_body=False)
    async with AdminClient(gateway.url) as client:
        assert await client.push(b"x" * 11_000_000) == TooLarge(SizeLimit.BODY)


async def test_server_that_ignores_the_expectation_gets_the_body_all_the_same(
    gateways: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "CONTINUE_WAIT", 0.05)
    gateway = await gateways(Script(answer(201, b'{"a":1}')), continues=False)
    content = b"x" * 2_000_000
    async with AdminClient(gateway.url) as client:
        assert await client.push(content) == Stored(predict_hash(content))
        assert await client.push(content) == Stored(predict_hash(content))
    assert ["expect" in seen.headers for seen in gateway.seen] == [False, False], "it is not waited for again"
    assert [len(seen.body) for seen in gateway.seen] == [2_000_000] * 2


async def test_slow_answer_to_a_large_body_is_no_ignored_expectation(
    gateways: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "CONTINUE_WAIT", 0.2)

    async def load(seen: Seen) -> bytes:
        await asyncio.sleep(0.4)
        return answer(201, b'{"a":1}')

    gateway = await gateways(Script(load))
    async with AdminClient(gateway.url) as client:
        assert isinstance(await client.push(b"x" * 2_000_000), Stored)
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1


async def test_unchanged_busy_and_unexpected(gateways: Start) -> None:
    assert await push(await gateways(Script(answer(304)))) == Unchanged(HASH)
    loading = b'{"message":"Currently loading previous configuration"}'
    gateway = await gateways(Script(answer(429, loading, Retry_After="7")))
    outcome = await push(gateway)
    assert outcome == Busy(7.0, "Currently loading previous configuration")
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1
    assert isinstance(await push(await gateways(Script(answer(404, b'{"message":"Not found"}')))), Unexpected)


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_server_errors_are_settled_by_the_hash(gateways: Start, code: int) -> None:
    oops = answer(code, b'{"message":"An unexpected error occurred"}')
    assert await push(await gateways(Script(oops, digest=HASH))) == Stored(HASH, read_back=True)
    outcome = await push(await gateways(Script(oops, digest="1" * 32)))
    assert outcome == Unknown("An unexpected error occurred", code, "1" * 32)


async def test_timeout_is_unknown_unless_the_hash_says_stored(gateways: Start) -> None:
    async def hang(seen: Seen) -> bytes:
        await asyncio.Event().wait()
        return b""

    outcome = await push(await gateways(Script(hang)), warm=True, timeout=0.5)
    assert isinstance(outcome, Unknown)
    assert outcome.observed == "0" * 32
    assert "0.5 s" in outcome.message
    assert await push(await gateways(Script(hang, digest=HASH)), warm=True, timeout=0.5) == Stored(
        HASH, read_back=True
    )


async def test_kept_connection_cut_by_a_reload_is_replaced_once(gateways: Start) -> None:
    gateway = await gateways(Script(CLOSE, answer(201, b'{"a":1}')))
    assert await push(gateway, warm=True) == Stored(HASH)
    posts = [seen for seen in gateway.seen if seen.method == "POST"]
    assert [post.number for post in posts] == [2, 1], "first over the kept connection, then over a fresh one"
    hashes_read = [seen for seen in gateway.seen if seen.method == "GET"]
    assert len(hashes_read) == 2, "the hash was read before the second post"


async def test_cut_after_the_store_is_not_posted_again(gateways: Start) -> None:
    gateway = await gateways(Script(CLOSE, digest=HASH))
    assert await push(gateway, warm=True) == Stored(HASH, read_back=True)
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1


async def test_fresh_connection_that_is_cut_is_not_tried_again(gateways: Start) -> None:
    gateway = await gateways(Script(CLOSE))
    outcome = await push(gateway)
    assert isinstance(outcome, Unknown)
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1


async def test_cut_twice_is_reported_not_tried_for_ever(gateways: Start) -> None:
    gateway = await gateways(Script(CLOSE))
    outcome = await push(gateway, warm=True)
    assert isinstance(outcome, Unknown)
    assert outcome.observed == "0" * 32
    assert sum(seen.method == "POST" for seen in gateway.seen) == 2


async def test_exiting_worker_on_a_kept_connection_is_left_for_a_new_one(gateways: Start) -> None:
    gateway = await gateways(Script(answer(503, EXITING), answer(201, b'{"a":1}')))
    assert await push(gateway, warm=True) == Stored(HASH)
    fresh = await gateways(Script(answer(503, EXITING), digest="2" * 32))
    assert await push(fresh) == Exiting("2" * 32)
    assert await push(await gateways(Script(answer(503, EXITING), digest=HASH))) == Stored(HASH, read_back=True)


async def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with AdminClient(f"http://127.0.0.1:{port}") as client:
        outcome = await client.push(CONTENT)
    assert isinstance(outcome, Unreachable)
    assert outcome.cause is UnreachableCause.REFUSED


async def test_reset_before_the_body_was_sent_cannot_have_stored_it(gateways: Start) -> None:
    gateway = await gateways(Script(CLOSE), read_body=False)
    async with AdminClient(gateway.url) as client:
        outcome = await client.push(b"x" * 30_000_000)
    assert isinstance(outcome, Unreachable)
    assert sum(seen.method == "POST" for seen in gateway.seen) == 1


async def test_lost_cause_is_asked_for_without_flattening(gateways: Start) -> None:
    lost = answer(400, b'{"code":14,"flattened_errors":{},"fields":{},"message":"declarative config is invalid: {}"}')
    named = answer(400, b'{"code":14,"fields":{"routes":{"r":["invalid reference"]}},"message":"x"}')
    gateway = await gateways(Script(lost, named))
    outcome = await push(gateway)
    assert isinstance(outcome, Refused)
    assert [(e.path, e.message) for e in outcome.document_errors] == [("routes.r[0]", "invalid reference")]
    assert [seen.path for seen in gateway.seen] == ["/config?check_hash=1&flatten_errors=1", "/config?check_hash=1"]
    still = await gateways(Script(lost))
    assert await push(still) == Refused()
    assert len(still.seen) == 2


async def test_refusal_that_breaks_off_is_still_a_refusal(gateways: Start) -> None:
    cut = b"HTTP/1.1 400 X\r\nContent-Type: application/json\r\nContent-Length: 900\r\nConnection: close\r\n\r\n{"
    outcome = await push(await gateways(Script(cut)))
    assert outcome == Refused(truncated=True)


async def test_201_whose_body_breaks_off_is_stored(gateways: Start) -> None:
    cut = b'HTTP/1.1 201 Created\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n{"routes":'
    assert await push(await gateways(Script(cut))) == Stored(HASH)


async def test_garbage_instead_of_http(gateways: Start) -> None:
    outcome = await push(await gateways(Script(b"SSH-2.0-OpenSSH_9.6\r\n\r\nConnection: close\r\n\r\n")))
    assert isinstance(outcome, Unknown)
    assert outcome.status is None


async def test_nothing_of_the_configuration_shows_in_outcomes_and_errors(gateways: Start) -> None:
    secret = b"hunter2-credential"
    content = b'{"consumers":[{"username":"a","keyauth_credentials":[{"key":"' + secret + b'"}]}]}'
    echo = {
        "entity_type": "keyauth_credential",
        "entity": {"key": secret.decode()},
        "errors": [{"message": f"bad {secret.decode()}"}],
    }
    refusal = answer(400, json.dumps({"code": 14, "flattened_errors": [echo]}).encode())
    for step in (refusal, CLOSE, answer(500, b"{}"), answer(429, b"{}")):
        gateway = await gateways(Script(step))
        async with AdminClient(gateway.url) as client:
            outcome = await client.push(content)
        error = find_error(outcome, "edge/gw-1")
        assert error is not None
        assert secret.decode() not in repr(outcome) + str(error) + repr(error) + str(explain(outcome, "gw-1"))


def test_every_outcome_becomes_a_triple_and_the_right_kind_of_error() -> None:
    assert find_error(Stored(HASH), "p") is None
    assert explain(Unchanged(HASH), "p").reason == "Unchanged"
    busy = find_error(Busy(3.0), "p")
    assert isinstance(busy, BusyError)
    assert busy.delay == 3.0
    retryable = [Exiting(), Unknown("x"), Unreachable(UnreachableCause.TIMED_OUT)]
    assert all(isinstance(find_error(outcome, "p"), RetryableError) for outcome in retryable)
    assert isinstance(find_error(Refused(), "p"), Invalid)
    triple = explain(TooLarge(SizeLimit.LMDB), "p")
    assert (triple.reason, triple.hint) == (
        "ConfigurationTooLarge",
        "docs/reference/proxy-reasons.md#configuration-too-large",
    )
    assert "lmdb_map_size" in triple.message


async def test_cancelled_push_leaves_nothing_behind(gateways: Start) -> None:
    arrived = asyncio.Event()

    async def hang(seen: Seen) -> bytes:
        arrived.set()
        await asyncio.Event().wait()
        return b""

    gateway = await gateways(Script(hang))
    async with AdminClient(gateway.url) as client:
        task = asyncio.create_task(client.push(CONTENT))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await client.status()).hash == "0" * 32
