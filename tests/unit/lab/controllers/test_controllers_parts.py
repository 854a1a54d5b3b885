"""The parts of the controllers on their own: cache, queue, ranking, arithmetic, selectors, names."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_cluster import deployment
from hypothesis import given
from hypothesis import strategies as st

from konverge.errors import Conflict, KonvergeError, Unavailable
from konverge.kube.resources import PODS, Object
from konverge.lab.controllers import caching
from konverge.lab.controllers.caching import Cache
from konverge.lab.controllers.conditions import format_time, merge_condition
from konverge.lab.controllers.hashing import hash_template, same_template
from konverge.lab.controllers.progressing import judge_progress, seconds_until_timeout
from konverge.lab.controllers.queueing import WorkQueue
from konverge.lab.controllers.ranking import rank_for_deletion
from konverge.lab.controllers.replicasets import run_in_batches
from konverge.lab.controllers.rolling import resolve_fenceposts
from konverge.lab.controllers.selecting import includes, matches

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(name: str, version: int = 1, uid: str = "", **parts: Any) -> Object:
    metadata = {"name": name, "namespace": "n", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, **parts.pop("metadata", {})}, "spec": {}, **parts}


class Script:
    """A client whose lists and watches are written down beforehand."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.asked: list[str] = []
        self.over = asyncio.Event()

    async def list_at(self, *_: Any) -> Any:
        self.asked.append("list")
        return self._next()

    async def watch(self, *_: Any, version: str, **__: Any) -> AsyncIterator[tuple[str, Object]]:
        self.asked.append(f"watch {version}")
        for event in self._next():
            if isinstance(event, KonvergeError):
                raise event
            yield event

    def _next(self) -> Any:
        if not self.steps:
            self.over.set()
            raise Unavailable("the end")
        step = self.steps.pop(0)
        if isinstance(step, KonvergeError):
            raise step
        return step


async def play(monkeypatch: pytest.MonkeyPatch, *steps: Any) -> tuple[Cache, list[Any], Script]:
    monkeypatch.setattr(caching, "BACKOFF", (0.0, 0.0))
    script = Script(*steps)
    cache = Cache(script, PODS)  # type: ignore[arg-type]
    told: list[Any] = []
    cache.subscribe(lambda old, new: told.append((_version(old), _version(new))))
    task = asyncio.create_task(cache.run())
    await script.over.wait()
    task.cancel()
    return cache, told, script


def _version(item: Object | None) -> int | None:
    return int(item["metadata"]["resourceVersion"]) if item else None


async def test_cache_resumes_from_the_last_version_and_lists_again_after_410(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    cache, told, script = await play(
        monkeypatch,
        ([pod("a", 1), pod("b", 2)], "2"),
        [("MODIFIED", pod("a", 3)), bookmark],
        [Conflict("gone", reason="Expired")],
        ([pod("a", 3), pod("c", 11)], "12"),
        [],
    )
    assert script.asked[:5] == ["list", "watch 2", "watch 9", "list", "watch 12"]
    assert told == [(None, 1), (None, 2), (1, 3), (2, None), (None, 11)]
    assert {item["metadata"]["name"] for item in cache.items("n")} == {"a", "c"}


async def test_cache_survives_an_api_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    away = Unavailable("away")
    cache, _, script = await play(monkeypatch, away, away, ([pod("a", 1)], "1"), [away], [("ADDED", pod("b", 2))])
    assert cache.synced.is_set()
    assert len(list(cache.items())) == 2
    assert script.asked.count("list") == 3


async def test_cache_follows_a_server_that_was_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _, script = await play(
        monkeypatch,
        ([pod("a", 90), pod("b", 91)], "99"),
        [Unavailable("too large resource version", reason="ApiServerError")],
        ([pod("a", 7)], "10"),
        [],
    )
    assert script.asked[:4] == ["list", "watch 99", "list", "watch 10"]
    assert [_version(item) for item in cache.items()] == [7]


def test_own_write_is_seen_at_once_and_never_undone_by_an_older_event() -> None:
    cache = Cache(None, PODS)  # type: ignore[arg-type]
    cache.note(pod("a", 5))
    cache._store(pod("a", 4))
    held = cache.get("n", "a")
    assert held is not None
    assert held["metadata"]["resourceVersion"] == "5"


def test_answer_that_arrives_after_the_deletion_does_not_bring_a_ghost() -> None:
    cache = Cache(None, PODS)  # type: ignore[arg-type]
    cache._drop(pod("a", 6))
    cache.note(pod("a", 5))
    assert cache.get("n", "a") is None


def test_deletion_of_a_predecessor_leaves_the_successor() -> None:
    cache = Cache(None, PODS)  # type: ignore[arg-type]
    cache.note(pod("a", 7, uid="new"))
    cache._drop(pod("a", 6, uid="old"))
    assert cache.get("n", "a") is not None


async def test_queue_holds_a_key_once_and_never_gives_it_to_two() -> None:
    queue, key = WorkQueue(), ("n", "a")
    queue.add(key)
    queue.add(key)
    assert await queue.take() == key
    queue.add(key)
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(key)
    assert await waiting == key


async def test_queue_gives_keys_after_their_delay_the_earlier_one_first() -> None:
    queue = WorkQueue()
    queue.add_after(("n", "late"), 0.05)
    queue.add_after(("n", "late"), 30.0)
    queue.add_after(("n", "early"), 30.0)
    queue.add_after(("n", "early"), 0.01)
    assert await queue.take() == ("n", "early")
    assert await queue.take() == ("n", "late")


async def test_batches_double_and_stop_at_the_first_failure() -> None:
    calls = 0

    async def act() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Unavailable("no more")

    with pytest.raises(Unavailable):
        await run_in_batches(500, act)
    assert calls == 1 + 2 + 4


def ranked(*pods: Object, related: tuple[Object, ...] = ()) -> list[str]:
    return [item["metadata"]["name"] for item in rank_for_deletion(pods, related or pods, NOW)]


def running(name: str, *, ready_for: float | None = 100, age: float = 200, node: str = "n1", **more: Any) -> Object:
    conditions = []
    if ready_for is not None:
        since = format_time(NOW - timedelta(seconds=ready_for))
        conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    created = format_time(NOW - timedelta(seconds=age))
    status = {"phase": "Running", "conditions": conditions, **more.pop("status", {})}
    metadata = {"creationTimestamp": created, **more}
    return {**pod(name, metadata=metadata), "status": status, "spec": {"nodeName": node}}


def test_pods_are_given_up_in_kubernetes_order() -> None:
    unassigned = running("unassigned", node="")
    pending = running("pending", status={"phase": "Pending"})
    unready = running("unready", ready_for=None)
    cheap = running("cheap", annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"})
    fresh = running("fresh", ready_for=3)
    shaky = running("shaky", status={"containerStatuses": [{"restartCount": 4}]})
    young = running("young", age=101)
    old = running("old", age=90000)
    order = ["unassigned", "pending", "unready", "cheap", "fresh", "shaky", "young", "old"]
    assert ranked(old, young, shaky, fresh, cheap, unready, pending, unassigned) == order


def test_of_equal_pods_the_one_on_the_crowded_node_goes_first() -> None:
    lone, first = running("lone", node="n2"), running("first", node="n1")
    neighbour = running("neighbour", node="n1")
    assert ranked(lone, first, related=(lone, first, neighbour)) == ["first", "lone"]


def test_pods_of_similar_age_are_equal_so_that_the_youngest_is_not_always_hit() -> None:
    assert ranked(running("b", ready_for=100), running("a", ready_for=110)) == ["a", "b"]
    assert ranked(running("b", ready_for=10), running("a", ready_for=110)) == ["b", "a"]


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "expected"),
    [
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 3, (1, 0)),
        ("25%", "25%", 1, (1, 0)),
        ("25%", "25%", 10, (3, 2)),
        (0, 0, 5, (0, 1)),
        (0, "10%", 5, (0, 1)),
        ("100%", 0, 3, (3, 0)),
    ],
)
def test_surge_is_rounded_up_and_unavailable_down(
    surge: int | str, unavailable: int | str, replicas: int, expected: tuple[int, int]
) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    assert resolve_fenceposts(deployment(replicas=replicas, strategy=rolling)) == expected


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.integers(0, 3))
def test_template_hash_is_a_dns_label_and_ignores_its_own_label(labels: dict[str, str], collisions: int) -> None:
    template = {"metadata": {"labels": labels}, "spec": {"containers": []}}
    value = hash_template(template, collisions)
    assert value.isalnum()
    assert 1 <= len(value) <= 10
    marked = {"metadata": {"labels": {**labels, "pod-template-hash": value}}, "spec": {"containers": []}}
    assert same_template(template, marked)
    assert hash_template(marked, collisions) == value
    assert hash_template(template, collisions + 1) != value


def test_selectors_follow_kubernetes_rules() -> None:
    labels = {"app": "web", "tier": "front"}
    expressions = [
        {"key": "tier", "operator": "In", "values": ["front", "back"]},
        {"key": "missing", "operator": "NotIn", "values": ["x"]},
        {"key": "app", "operator": "Exists"},
        {"key": "gone", "operator": "DoesNotExist"},
    ]
    assert matches({"matchLabels": {"app": "web"}, "matchExpressions": expressions}, labels)
    assert not matches({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, labels)
    assert not matches({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, labels)
    assert matches({}, labels)
    assert not matches(None, labels)
    assert not includes({}, labels)
    assert not includes(None, labels)


def test_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    old = {"type": "Progressing", "status": "True", "reason": "A", "lastTransitionTime": "then"}
    new = {"type": "Progressing", "status": "True", "reason": "B", "lastTransitionTime": "now"}
    assert merge_condition([old], new) == [{**new, "lastTransitionTime": "then"}]
    assert merge_condition([old], {**new, "status": "False"}) == [{**new, "status": "False"}]
    assert merge_condition([old], {**new, "reason": "A"}) == [old]


def test_rollout_without_progress_times_out() -> None:
    stuck = deployment(progressDeadlineSeconds=60)
    stamp = format_time(NOW - timedelta(seconds=61))
    progress = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": stamp}
    stuck["status"] = {"replicas": 3, "updatedReplicas": 1, "conditions": [progress]}
    counts = {"replicas": 3, "updatedReplicas": 1}
    assert seconds_until_timeout(stuck, NOW) == -1
    verdict, _ = judge_progress(stuck, counts, None, NOW)
    assert verdict is not None
    assert (verdict["status"], verdict["reason"]) == ("False", "ProgressDeadlineExceeded")
    assert judge_progress(stuck, counts, None, NOW - timedelta(seconds=2)) == (None, False)
    assert judge_progress(stuck, {**counts, "readyReplicas": 1}, None, NOW)[1]
