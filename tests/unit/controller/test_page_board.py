"""The board behind the page: only what changed is told, a reader that comes back misses nothing, a slow one goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from konverge.controller.page.board import BACKLOG, REMEMBERED, Board
from konverge.controller.page.snapshot import Snapshot
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Mtls, Phase, ProxyStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Source:
    """A fleet in memory that counts how often it is asked."""

    def __init__(self) -> None:
        self.fleet = Fleet(name="shop", namespace="ns", spec=FleetSpec(proxy_service="s"))
        self.proxies = {f"p{number}": status(3) for number in range(4)}
        self.revision = 3

    def snapshot(self) -> Snapshot:
        return Snapshot(self.fleet, dict(self.proxies), revision=self.revision)


def status(revision: int, **changes: Any) -> ProxyStatus:
    made = ProxyStatus(
        phase=Phase.SERVING,
        desired_revision=revision,
        loaded_revision=revision,
        synced=True,
        traffic_ready=True,
        mtls=Mtls(expires=NOW + timedelta(days=8)),
    )
    return made.model_copy(update=changes)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def board(source: Source) -> Board:
    board = Board(source, clock=lambda: NOW)
    board.refresh()
    return board


def body(data: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(data)
    return loaded


def test_the_first_look_is_everything(board: Board) -> None:
    document = body(board.document())
    assert [row["name"] for row in document["proxies"]] == ["p0", "p1", "p2", "p3"]
    assert (document["fleet"]["name"], document["fleet"]["counts"]["Serving"]) == ("shop", 4)


def test_rest_is_no_change(board: Board, source: Source) -> None:
    version = board.version
    source.proxies["p1"] = source.proxies["p1"].model_copy()
    assert not board.refresh()
    assert board.version == version


def test_only_what_differs_is_told(board: Board, source: Source) -> None:
    seen = board.version
    source.proxies["p2"] = status(3, phase=Phase.QUARANTINED, traffic_ready=False)
    del source.proxies["p0"]
    assert board.refresh()
    (change,) = board.catch_up(seen)
    told = body(change.data)
    assert ([row["name"] for row in told["proxies"]], told["gone"]) == (["p2"], ["p0"])
    assert told["proxies"][0]["state"] == "Quarantined"


def test_time_alone_changes_a_state(source: Source) -> None:
    now = NOW
    board = Board(source, clock=lambda: now)
    board.refresh()
    now = NOW + timedelta(days=4)
    assert board.refresh()
    assert {row["state"] for row in board.rows.values()} == {"Expiring"}


def test_a_reader_that_comes_back_misses_nothing(board: Board, source: Source) -> None:
    seen = board.version
    for revision in (4, 5, 6):
        source.proxies["p0"] = status(revision)
        board.refresh()
    assert [body(change.data)["proxies"][0]["revision"] for change in board.catch_up(seen)] == [4, 5, 6]
    assert board.catch_up(board.version) == []


@pytest.mark.parametrize("last", ["", "nonsense", "other-1", "other-999999", "-1", "x-١"])
def test_a_reader_from_elsewhere_gets_everything(board: Board, last: str) -> None:
    (change,) = board.catch_up(last)
    assert (change.event, len(body(change.data)["proxies"])) == ("snapshot", 4)


def test_a_reader_from_the_future_or_too_far_behind_gets_everything(board: Board, source: Source) -> None:
    seen = board.version
    assert board.catch_up(f"{board.epoch}-99")[0].event == "snapshot"
    for revision in range(REMEMBERED + 5):
        source.proxies["p0"] = status(revision + 10)
        board.refresh()
    assert board.catch_up(seen)[0].event == "snapshot"


def test_a_slow_reader_is_dropped_and_the_others_are_not(board: Board, source: Source) -> None:
    with board.read() as slow, board.read() as quick:
        for revision in range(BACKLOG + 1):
            source.proxies["p0"] = status(revision + 10)
            board.refresh()
            quick.queue.get_nowait()
        assert (slow.dropped, quick.dropped) == (True, False)
        assert slow.queue.get_nowait() is None
        assert board.readers == {quick}


def test_without_a_fleet_there_is_a_page(source: Source) -> None:
    board = Board(_Nothing(), clock=lambda: NOW)
    board.refresh()
    assert body(board.document())["fleet"]["total"] == 0


class _Nothing:
    def snapshot(self) -> Snapshot:
        return Snapshot(None)
