"""The cache lists once, follows, takes up where it was, lists again after 410, and backs off on virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from virtual_time import now, run_virtually

from konverge.errors import Conflict, Forbidden, KonvergeError, NotFound, Unavailable
from konverge.kube import caching
from konverge.kube.caching import ABSENT_DELAY, LONGEST_DELAY, Cache, backoff_delay, object_key
from konverge.kube.client import map_status
from konverge.kube.resources import PROXY_FLEETS, SERVICES, Object, Resource

Event = tuple[str, Object] | KonvergeError


def item(name: str, version: int, namespace: str = "ns") -> Object:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(version)}}


def bookmark(version: int) -> tuple[str, Object]:
    return "BOOKMARK", {"metadata": {"resourceVersion": str(version)}}


class Server:
    """Answers lists and watches from a script; the last answer of each stays."""

    def __init__(self, lists: list[Any], watches: list[list[Event]]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[tuple[str, str, float]] = []

    async def list_at(self, *_: Any, **options: Any) -> tuple[list[Object], str]:
        self.asked.append(("list", "", now()))
        answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(answer, KonvergeError):
            raise answer
        return answer

    async def watch(self, *_: Any, version: str, **options: Any) -> AsyncIterator[tuple[str, Object]]:
        self.asked.append(("watch", version, now()))
        if not self.watches:
            await asyncio.sleep(1e9)
        for event in self.watches.pop(0):
            if isinstance(event, KonvergeError):
                raise event
            yield event
        await asyncio.sleep(1)

    def kinds(self) -> list[str]:
        return [f"{kind} {version}".strip() for kind, version, _ in self.asked]


class Seen:
    """What a cache told its listener."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, kind: str, body: Object) -> None:
        self.events.append((kind, body["metadata"]["name"]))


def follow(
    lists: list[Any],
    watches: list[list[Event]],
    check: Callable[[Cache, Server, Seen], None],
    seconds: float = 1000.0,
    resource: Resource = SERVICES,
) -> None:
    """Run a cache against a script for some seconds of virtual time, then check."""

    async def story() -> None:
        server, seen = Server(lists, watches), Seen()
        cache = Cache(server, resource, on_change=seen)  # type: ignore[arg-type]
        running = asyncio.create_task(cache.run())
        await asyncio.sleep(seconds)
        assert not running.done(), running
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        check(cache, server, seen)

    run_virtually(story())


def test_a_list_then_a_watch_from_its_version() -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert server.kinds() == ["list", "watch 10", "watch 12"]
        assert sorted(body["metadata"]["name"] for body in cache) == ["a", "c"]
        assert seen.events == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c"), ("DELETED", "b")]
        assert cache.synced.is_set()
        assert cache.objects["ns", "a"]["kind"] == "Service"

    events: list[Event] = [("ADDED", item("c", 11)), ("DELETED", item("b", 12))]
    follow([([item("a", 1), item("b", 2)], "10")], [events], check)


def test_bookmarks_move_the_resume_point_and_tell_nobody() -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert server.kinds() == ["list", "watch 10", "watch 900"]
        assert seen.events == []

    follow([([], "10")], [[bookmark(500), bookmark(900)]], check)


def test_a_watch_that_breaks_is_taken_up_where_it_was() -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert server.kinds() == ["list", "watch 10", "watch 11"]
        assert seen.events == [("MODIFIED", "a")]
        assert cache.failures == 1

    follow([([], "10")], [[("MODIFIED", item("a", 11)), Unavailable("reset")]], check)


@pytest.mark.parametrize("where", ["event", "at once"])
def test_410_means_list_again_and_tell_only_what_differs(where: str) -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert [k.split()[0] for k in server.kinds()] == ["list", "watch", "list", "watch"]
        assert server.kinds()[-1] == "watch 50"
        assert seen.events[3:] == [("DELETED", "gone"), ("MODIFIED", "changed"), ("ADDED", "new")]
        assert server.asked[2][2] == server.asked[1][2], "the first 410 is answered at once"

    before = ([item("same", 1), item("changed", 2), item("gone", 3)], "10")
    after = ([item("same", 1), item("changed", 40), item("new", 41)], "50")
    events: list[Event] = [Conflict("too old", reason="Expired")]
    follow([before, after], [[bookmark(20), *events] if where == "event" else events], check)


def test_410_again_and_again_backs_off() -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        lists = [at for kind, _, at in server.asked if kind == "list"]
        gaps = [b - a for a, b in itertools.pairwise(lists)]
        assert gaps[0] == 0
        assert all(later > 0.4 for later in gaps[1:])

    expired: list[list[Event]] = [[Conflict("too old", reason="Expired")] for _ in range(5)]
    follow([([], "10")], expired, check)


def test_an_api_that_is_down_meets_no_storm_and_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching, "backoff_delay", lambda attempt: backoff_delay(attempt, lambda: 1.0))

    def check(cache: Cache, server: Server, seen: Seen) -> None:
        tries = [at for kind, _, at in server.asked if kind == "list"]
        gaps = [round(b - a, 3) for a, b in itertools.pairwise(tries)]
        assert gaps == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert cache.synced.is_set()
        assert cache.failures == 0, "an event of the new watch ends the series"

    follow([*[Unavailable("down")] * 8, ([], "1")], [[bookmark(2)]], check)


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_delay_is_bounded_and_never_short(attempt: int, jitter: float) -> None:
    delay = backoff_delay(attempt, lambda: jitter)
    assert 0.25 <= delay <= LONGEST_DELAY
    assert delay >= backoff_delay(attempt, lambda: 0.0)


def test_the_delays_double_up_to_the_longest() -> None:
    assert [backoff_delay(n, lambda: 1.0) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff_delay(n, lambda: 0.0) for n in range(3)] == [0.25, 0.5, 1]


@pytest.mark.parametrize("error", [NotFound("no such kind"), Forbidden("no rights")])
def test_a_kind_that_is_not_there_counts_as_empty_until_it_comes(error: KonvergeError) -> None:
    def absent(cache: Cache, server: Server, seen: Seen) -> None:
        assert cache.absent
        assert cache.synced.is_set()
        assert len(server.asked) == 1

    follow([error], [], absent, seconds=1, resource=PROXY_FLEETS)

    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert server.kinds() == ["list", "list", "watch 7"]
        assert 0.9 * ABSENT_DELAY <= server.asked[1][2] <= 1.1 * ABSENT_DELAY
        assert not cache.absent
        assert seen.events == [("ADDED", "a")]

    follow([error, ([item("a", 1)], "7")], [], check, seconds=60, resource=PROXY_FLEETS)


@pytest.mark.parametrize(
    ("resource", "error"),
    [
        (SERVICES, Forbidden("no rights")),
        (PROXY_FLEETS, map_status(401, b"{}", "GET /apis/konverge.dev/v1alpha1/proxyfleets")),
    ],
    ids=["no right to read what every cluster has", "not known to the server"],
)
def test_what_was_not_seen_does_not_count_as_empty(resource: Resource, error: KonvergeError) -> None:
    def blind(cache: Cache, _server: Server, _seen: Seen) -> None:
        assert not cache.synced.is_set(), "a configuration without these objects would be pushed"
        assert not cache.absent

    follow([error], [], blind, seconds=1000, resource=resource)

    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert cache.synced.is_set()
        assert server.asked[1][2] < 1.0, "asked again soon"
        assert seen.events == [("ADDED", "a")]

    follow([error, ([item("a", 1)], "7")], [], check, seconds=60, resource=resource)


def test_a_kind_whose_crd_goes_is_listed_anew_when_it_is_back() -> None:
    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert server.kinds() == ["list", "watch 7", "list", "watch 9"]
        assert seen.events == [("ADDED", "a"), ("DELETED", "a")]

    follow([([item("a", 1)], "7"), ([], "9")], [[NotFound("gone")]], check, seconds=60)


def test_namespaces_are_kept_apart() -> None:
    assert object_key(item("a", 1)) == ("ns", "a")
    assert object_key({"metadata": {"name": "a"}}) == ("", "a")

    def check(cache: Cache, server: Server, seen: Seen) -> None:
        assert len(cache.objects) == 2

    follow([([item("a", 1, "x"), item("a", 2, "y")], "7")], [], check)
