from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable

import orjson
import pytest
from scripted_server import OK, Peer, Script, answer_always, serve

from konverge.errors import UsageError
from konverge.lab.load import LoadGenerator, LoadPlan, LoadReport, Target, TrafficClass, senders
from konverge.lab.load.report import Counts
from konverge.lab.load.requests import spread
from konverge.lab.load.senders import Sender

RATE = 200.0


def plan_for(url: str, *classes: TrafficClass, rate: float = RATE, timeout: float = 2.0) -> LoadPlan:
    return LoadPlan(base_url=url, rate=rate, classes=list(classes), timeout=timeout, connect_timeout=1.0)


def requests_of(kind: str, share: float = 1, **target: object) -> TrafficClass:
    return TrafficClass.model_validate(
        {"name": kind, "kind": kind, "share": share, "connections": 4, "targets": [{"name": kind, **target}]}
    )


async def run_until(generator: LoadGenerator, reached: Callable[[Counts], bool]) -> None:
    await generator.wait_until(lambda snapshot: reached(snapshot.requests), 10)


def check_sums(report: LoadReport) -> None:
    for block in [report.requests, *report.phases.values(), *report.requests.by_class.values()]:
        parts = block.ok, block.retried_on_stale_connection, block.closed_gracefully, block.failed
        assert sum(parts) == block.total
        assert sum(block.by_kind.values()) == block.failed
    for blocks in (report.phases, report.requests.by_class, report.requests.by_target):
        assert sum(block.total for block in blocks.values()) == report.requests.total


async def test_every_request_on_the_schedule_is_counted_once() -> None:
    async with serve(answer_always) as server:
        plan = plan_for(server.url, requests_of("keepalive", 3), requests_of("fresh", 1))
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.total >= 40)
            report = await load.stop()
        assert report.clean
        check_sums(report)
        assert report.requests.total == sum(peer.requests for peer in server.peers)
        classes = report.requests.by_class
        assert classes["fresh"].total == pytest.approx(report.requests.total / 4, abs=1)
        # Four kept connections (more only while all of them are busy), and one for every request of the other class.
        assert report.connections.opened == len(server.peers) >= 4 + classes["fresh"].total


async def test_a_stall_of_the_server_is_the_latency_of_all_that_was_due() -> None:
    released = asyncio.Event()

    async def stall(peer: Peer) -> None:
        while await peer.read_request():
            await released.wait()
            await peer.write(OK)

    async with serve(stall) as server:
        async with LoadGenerator(plan_for(server.url, requests_of("keepalive"))) as load:
            begins = asyncio.get_running_loop().time()
            await load.wait_until(lambda snapshot: snapshot.in_flight >= 40, 10)
            stalled = asyncio.get_running_loop().time() - begins
            released.set()
            await run_until(load, lambda counts: counts.total >= 40)
            report = await load.stop()
        # Starts are 5 ms apart, so the waiting times are spread evenly: the median is about half the stall.
        assert report.requests.failed == 0
        assert report.phases["before"].max_ms >= stalled * 1e3 * 0.9
        assert report.phases["before"].p50_ms >= stalled * 1e3 * 0.25


async def test_requests_belong_to_the_phase_of_their_intended_start() -> None:
    released = asyncio.Event()

    async def hold(peer: Peer) -> None:
        while await peer.read_request():
            await released.wait()
            await peer.write(OK)

    async with serve(hold) as server, LoadGenerator(plan_for(server.url, requests_of("keepalive"))) as load:
        await load.wait_until(lambda snapshot: snapshot.in_flight >= 10, 10)
        load.mark("during")
        started_before = load.snapshot().in_flight
        released.set()
        await run_until(load, lambda counts: counts.total >= 20)
        load.mark("after")
        report = await load.stop()
    assert list(report.phases) == ["before", "during", "after"]
    # One may have been due before the mark and have started after it: it belongs to "before".
    assert started_before <= report.phases["before"].total <= started_before + 1
    assert report.phases["during"].total >= 19 - started_before
    assert report.phases["during"].started == pytest.approx(report.phases["before"].seconds, abs=0.002)
    check_sums(report)


async def test_a_stall_of_the_generator_itself_is_named() -> None:
    async with serve(answer_always) as server, LoadGenerator(plan_for(server.url, requests_of("keepalive"))) as load:
        await run_until(load, lambda counts: counts.total >= 5)
        loop = asyncio.get_running_loop()
        begins = loop.time()
        while loop.time() - begins < 0.15:
            pass
        await run_until(load, lambda counts: counts.total >= 40)
        report = await load.stop()
    assert report.schedule.fell_behind
    assert report.schedule.max_lag_ms >= 140
    assert "behind" in report.schedule.note
    # Nothing that was due in the stall was left out.
    assert report.schedule.achieved_rate == pytest.approx(RATE, rel=0.15)


async def say_teapot(peer: Peer) -> None:
    while await peer.read_request():
        await peer.write(b"HTTP/1.1 418 x\r\nContent-Length: 6\r\n\r\nteapot")


async def cut_body(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(OK[:-1])


async def cut_chunks(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")


async def speak_gibberish(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(b"SSH-2.0-x\r\n\r\n")


async def reset(peer: Peer) -> None:
    await peer.read_request()
    peer.reset()


async def leave(peer: Peer) -> None:
    await peer.read_request()


async def hang(peer: Peer) -> None:
    await peer.read_request()
    await peer.reader.read()


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (say_teapot, "bad_status_418"),
        (cut_body, "truncated"),
        (cut_chunks, "eof_mid_response"),
        (speak_gibberish, "malformed_response"),
        (reset, "reset"),
        (leave, "eof_before_response"),
        (hang, "timeout"),
    ],
)
async def test_each_failure_has_its_kind_its_moment_and_its_place(script: Script, kind: str) -> None:
    async with serve(script) as server:
        plan = plan_for(server.url, requests_of("fresh"), timeout=0.2)
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.failed >= 3)
            report = await load.stop()
    assert set(report.requests.by_kind) == {kind}
    assert report.requests.failed == report.requests.total
    sample = report.failures[0]
    assert (sample.kind, sample.class_name, sample.target, sample.phase) == (kind, "fresh", "fresh", "before")
    assert 0 <= sample.intended <= sample.offset <= report.seconds + 1
    assert abs((sample.wall - report.started).total_seconds() - sample.offset) < 0.001
    assert sample.detail
    check_sums(report)


async def test_an_expected_refusal_is_a_pass_and_its_absence_a_failure() -> None:
    async with serve(say_teapot) as server:
        async with LoadGenerator(
            plan_for(server.url, requests_of("keepalive", expect=[418], contains="tea"))
        ) as load:
            await run_until(load, lambda counts: counts.total >= 5)
            good = await load.stop()
        async with LoadGenerator(
            plan_for(server.url, requests_of("keepalive", expect=[418], contains="milk"))
        ) as load:
            await run_until(load, lambda counts: counts.total >= 5)
            bad = await load.stop()
    assert good.clean
    assert set(bad.requests.by_kind) == {"wrong_body"}


async def close_every_second(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(OK)
    await peer.read_request()


async def test_retries_are_counted_apart_and_never_as_plain_successes() -> None:
    async with (
        serve(close_every_second) as server,
        LoadGenerator(plan_for(server.url, requests_of("keepalive"))) as load,
    ):
        await run_until(load, lambda counts: counts.retried_on_stale_connection >= 5)
        report = await load.stop()
    assert report.requests.failed == 0
    assert report.requests.ok + report.requests.retried_on_stale_connection == report.requests.total
    check_sums(report)


async def echo_digest(peer: Peer) -> None:
    while request := await peer.read_request():
        head, _, content = request.partition(b"\r\n\r\n")
        if b"chunked" in head:
            content = unchunk(content)
        answer = orjson.dumps({"body_sha256": hashlib.sha256(content).hexdigest(), "body_length": len(content)})
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


def unchunk(data: bytes) -> bytes:
    content = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        content += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return content


async def test_bodies_are_sent_whole_in_both_framings() -> None:
    async with serve(echo_digest) as server:
        item = requests_of("body", method="POST").model_copy(update={"body_bytes": [0, 1, 5000]})
        async with LoadGenerator(plan_for(server.url, item)) as load:
            await run_until(load, lambda counts: counts.total >= 24)
            report = await load.stop()
    assert report.clean


async def echo_other_digest(peer: Peer) -> None:
    answer = orjson.dumps({"body_sha256": "0" * 64, "body_length": 1024})
    while await peer.read_request():
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


@pytest.mark.parametrize("script", [echo_other_digest, answer_always])
async def test_a_body_that_arrives_changed_is_wrong(script: Script) -> None:
    async with (
        serve(script) as server,
        LoadGenerator(plan_for(server.url, requests_of("body", method="POST"))) as load,
    ):
        await run_until(load, lambda counts: counts.failed >= 3)
        report = await load.stop()
    assert set(report.requests.by_kind) == {"wrong_body"}


async def test_credentials_are_sent_and_not_shown() -> None:
    heads: list[bytes] = []

    async def note(peer: Peer) -> None:
        while head := await peer.read_request():
            heads.append(head)
            await peer.write(OK)

    async with serve(note) as server:
        plan = plan_for(server.url, requests_of("keepalive", host="a.test", credentials={"apikey": "sesame"}))
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.total >= 1)
            report = await load.stop()
    assert b"\r\napikey: sesame\r\n" in heads[0]
    assert b"\r\nHost: a.test\r\n" in heads[0]
    assert "sesame" not in repr(plan) + report.model_dump_json() + plan.model_dump_json()
    assert b"sesame" in plan.to_bytes()


async def test_more_than_the_client_can_carry_is_a_failure_not_a_silence() -> None:
    async with serve(hang) as server:
        plan = plan_for(server.url, requests_of("fresh"), timeout=0.3).model_copy(update={"max_in_flight": 5})
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.by_kind.get("client_overloaded", 0) >= 5)
            report = await load.stop()
    assert set(report.requests.by_kind) == {"client_overloaded", "timeout"}
    check_sums(report)


async def test_a_fault_of_the_generator_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(senders, "check_response", fail)
    async with serve(answer_always) as server:
        async with LoadGenerator(plan_for(server.url, requests_of("keepalive"))) as load:
            await run_until(load, lambda counts: counts.failed >= 3)
            report = await load.stop()
        assert set(report.requests.by_kind) == {"client_error"}
        assert report.requests.total == sum(peer.requests for peer in server.peers)
    assert "a bug" in report.failures[0].detail


async def test_samples_are_bounded_and_counts_are_not() -> None:
    async with serve(leave) as server:
        plan = plan_for(server.url, requests_of("fresh")).model_copy(update={"samples": 3})
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.failed >= 6)
            report = await load.stop()
    assert len(report.failures) == 3
    assert report.requests.failed >= 6


async def test_stopping_twice_gives_the_same_report_and_using_it_unstarted_is_an_error() -> None:
    async with serve(answer_always) as server:
        plan = plan_for(server.url, requests_of("keepalive"))
        with pytest.raises(UsageError, match="not been started"):
            LoadGenerator(plan).mark("x")
        async with LoadGenerator(plan) as load:
            await run_until(load, lambda counts: counts.total >= 3)
            first = await load.stop()
            assert await load.stop() is first


def test_turns_follow_the_weights_evenly() -> None:
    turns = Counter(itertools.islice(spread([5, 3, 2]), 100))
    assert turns == {0: 50, 1: 30, 2: 20}
    first = list(itertools.islice(spread([1, 1]), 4))
    assert sorted(first[:2]) == [0, 1]


def test_targets_of_a_class_share_its_connections() -> None:
    targets = [Target(name="a"), Target(name="b", path="/b")]
    item = TrafficClass(name="k", kind="keepalive", targets=targets)
    sender = Sender(LoadPlan(base_url="http://127.0.0.1:1", classes=[item]), item)
    assert len(sender.pools) == 1
    secure = Sender(LoadPlan(base_url="https://127.0.0.1:1", classes=[item]), item)
    assert len(secure.pools) == 1
