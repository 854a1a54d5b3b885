"""New identity files come into force: projected first, reloaded until a handshake proves it, refusals named."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from konverge.decide.objects import IDENTITY_PATH
from konverge.errors import NotFound, VerificationFailed
from konverge.kube.streaming import ExecResult
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.model.rotation import ProxyWork
from konverge.operate import reloading
from konverge.operate.identities import create_authority, issue_proxies
from konverge.operate.proving import HOLDS, Seen
from konverge.operate.reloading import Distribution, distribute
from konverge.operate.returning import Standing
from konverge.pki.bundle import build_bundle
from konverge.pki.files import IdentityFiles

NOW = datetime(2026, 5, 1, tzinfo=UTC)
FLEET = Fleet(name="shop", namespace="ns", spec=FleetSpec(proxy_service="s"))


def make_files() -> IdentityFiles:
    authority = create_authority(FLEET, NOW)
    return issue_proxies(FLEET, authority, build_bundle(authority.identity.chain[:1], NOW), NOW)


FILES = make_files()


class Pods:
    """Pods whose kubelet is late by some looks, and whose reload is in force after some proofs."""

    def __init__(self, *names: str, late: int = 0, slow: int = 0) -> None:
        self.proxies = [Proxy(name=name, namespace="ns", ip="127.0.0.2") for name in names]
        self.late = dict.fromkeys(names, late)
        self.slow = dict.fromkeys(names, slow)
        self.reloaded: dict[str, bool] = dict.fromkeys(names, False)
        self.log: list[str] = []
        self.refused: set[str] = set()
        self.down: set[str] = set()
        self.busy = self.most = 0

    async def exec(self, _kube: Any, pod: str, namespace: str, container: str, command: list[str]) -> ExecResult:
        assert (namespace, container) == ("ns", "proxy")
        if command[0] == "cat":
            names = [path.removeprefix(f"{IDENTITY_PATH}/") for path in command[1:]]
            self.late[pod] -= 1
            shown = b"".join(FILES.data[name] for name in names)
            return ExecResult(0, shown if self.late[pod] < 0 else b"old", b"")
        self.log.append(f"reload {pod}")
        assert self.late[pod] < 0, "reloaded before the files were projected"
        if pod in self.refused:
            return ExecResult(1, b"", b"nginx: [emerg] cannot load certificate")
        self.reloaded[pod] = True
        return ExecResult(0, b"", b"")

    async def proof(self, proxy: Proxy) -> Seen:
        if proxy.name in self.down:
            return Seen("connection refused", reachable=False)
        if self.reloaded[proxy.name]:
            self.slow[proxy.name] -= 1
        return HOLDS if self.reloaded[proxy.name] and self.slow[proxy.name] < 0 else Seen("it shows serial 1")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "PAUSE", 0.0)
    monkeypatch.setattr(reloading, "ABSENT_PAUSE", 0.0)
    monkeypatch.setattr(reloading, "FORCE_SECONDS", 0.05)

    async def idle(*_: Any) -> Standing:
        return Standing(serving=False)

    monkeypatch.setattr(reloading, "find_standing", idle)


def use(monkeypatch: pytest.MonkeyPatch, pods: Pods) -> Pods:
    monkeypatch.setattr(reloading.streaming, "exec", pods.exec)
    return pods


async def run(pods: Pods) -> dict[str, int]:
    kube: Any = object()
    return {r.proxy: r.reloads for r in await distribute(pods.proxies, Distribution(kube, FILES, pods.proof))}


async def test_a_proxy_is_reloaded_after_the_projection_and_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b", late=3, slow=2))
    assert await run(pods) == {"a": 1, "b": 1}
    assert pods.log == ["reload a", "reload b"]


async def test_what_is_in_force_is_not_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a"))
    pods.reloaded["a"] = True
    assert await run(pods) == {"a": 0}
    assert pods.log == []


async def test_a_reload_that_did_not_take_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a"))
    reloads = 0
    original = pods.exec

    async def lose_the_first(*words: Any) -> ExecResult:
        nonlocal reloads
        result = await original(*words)
        if words[-1][0] == "kong":
            reloads += 1
            pods.reloaded["a"] = reloads > 1
        return result

    monkeypatch.setattr(reloading.streaming, "exec", lose_the_first)
    assert await run(pods) == {"a": 2}


async def test_a_refused_reload_is_named_with_kongs_words_and_no_other_proxy_is_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pods = use(monkeypatch, Pods("a", "b", "c"))
    pods.refused.add("b")
    with pytest.raises(
        VerificationFailed, match=r"proxy b: kong reload ended with 1: nginx: \[emerg\] cannot load .*; 1 others were"
    ) as caught:
        await run(pods)
    assert caught.value.reason == "NotInForce"
    assert pods.reloaded == {"a": True, "b": False, "c": False}


async def test_files_that_are_never_projected_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "PROJECTION_SECONDS", 0.02)
    pods = use(monkeypatch, Pods("a", late=10**9))
    with pytest.raises(VerificationFailed, match="proxy a: the kubelet has not projected"):
        await run(pods)
    assert pods.log == []


async def test_a_proof_that_never_holds_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "PROJECTION_SECONDS", 0.1)
    pods = use(monkeypatch, Pods("a", slow=10**9))
    with pytest.raises(VerificationFailed, match=r"proxy a: after \d+ reloads still: it shows serial 1"):
        await run(pods)


async def test_a_proxy_that_is_out_of_reach_owes_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b", "c"))
    pods.down.add("b")
    kube: Any = object()
    seen: list[str] = []
    what = Distribution(kube, FILES, pods.proof, on_progress=lambda work: seen.append(work.proxy))
    works = {work.proxy: work for work in await distribute(pods.proxies, what)}
    assert {name: work.owes for name, work in works.items()} == {"a": False, "b": True, "c": False}
    assert works["b"].seen == "connection refused"
    assert pods.log == ["reload a", "reload c"]
    assert sorted(seen) == ["a", "b", "c"]


async def test_a_proxy_that_goes_away_while_it_is_worked_on_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b"))

    async def vanish(*words: Any) -> ExecResult:
        if words[1] == "a":
            pods.down.add("a")
            raise NotFound('pods "a" not found')
        return await pods.exec(*words)

    monkeypatch.setattr(reloading.streaming, "exec", vanish)
    kube: Any = object()
    works = {w.proxy: w.owes for w in await distribute(pods.proxies, Distribution(kube, FILES, pods.proof))}
    assert works == {"a": True, "b": False}


async def test_an_emergency_reports_who_refuses_its_files_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b"))
    pods.refused.add("a")
    kube: Any = object()
    works = await distribute(pods.proxies, Distribution(kube, FILES, pods.proof, stragglers=True))
    assert [(w.proxy, w.owes) for w in works] == [("a", True), ("b", False)]
    assert "kong reload ended with 1" in works[0].seen


class Rounds:
    """Notes who is reloaded together: all reloads that begin before one of them has ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pods: Pods) -> None:
        self.rounds: list[list[str]] = []
        self._busy: set[str] = set()
        self._exec = pods.exec
        monkeypatch.setattr(reloading.streaming, "exec", self.exec)

    async def exec(self, *words: Any) -> ExecResult:
        if words[-1] == ["kong", "reload"]:
            if not self._busy:
                self.rounds.append([])
            self._busy.add(words[1])
            self.rounds[-1].append(words[1])
            for _ in range(20):
                await asyncio.sleep(0)
            self._busy.discard(words[1])
        return await self._exec(*words)


async def run_at_once(pods: Pods, batch: int, **changes: Any) -> list[ProxyWork]:
    kube: Any = object()
    return await distribute(pods.proxies, Distribution(kube, FILES, pods.proof, batch=batch, **changes))


@pytest.mark.parametrize(
    ("batch", "rounds"), [(1, ["a", "b", "c", "d", "e", "f"]), (2, ["a", "bc", "de", "f"]), (9, ["a", "bcdef"])]
)
async def test_the_first_proxy_proves_the_files_alone_and_then_a_batch_at_a_time(
    monkeypatch: pytest.MonkeyPatch, batch: int, rounds: list[str]
) -> None:
    pods = use(monkeypatch, Pods(*"abcdef"))
    seen = Rounds(monkeypatch, pods)
    works = await run_at_once(pods, batch)
    assert seen.rounds == [list(names) for names in rounds]
    assert [(work.proxy, work.reloads) for work in works] == [(name, 1) for name in "abcdef"]


async def test_the_next_batch_begins_when_all_of_the_one_before_are_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abcde"))
    let_go(monkeypatch, pods)
    pods.slow["b"] = 30
    await run_at_once(pods, 2)
    places = {line: place for place, line in enumerate(pods.log)}
    for earlier, later in (("a", "bc"), ("b", "de"), ("c", "de")):
        assert all(places[f"back {earlier}"] < places[f"reload {name}"] for name in later), pods.log


async def test_a_proxy_that_is_out_of_reach_proves_nothing_about_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abcde"))
    pods.down |= {"a", "b"}
    seen = Rounds(monkeypatch, pods)
    works = await run_at_once(pods, 3)
    assert seen.rounds == [["c"], ["d", "e"]]
    assert [work.proxy for work in works if work.owes] == ["a", "b"]


async def test_a_failure_ends_its_batch_and_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abcdefg"))
    pods.refused.add("b")
    told: list[str] = []
    with pytest.raises(VerificationFailed, match=r"proxy b: kong reload .*; 4 others were not touched"):
        await run_at_once(pods, 2, on_progress=lambda work: told.append(work.proxy))
    assert sorted(pods.log) == ["reload a", "reload b", "reload c"]
    assert pods.reloaded["c"], "who was under way is proven to the end"
    assert sorted(told) == ["a", "c"]


async def test_files_that_the_first_proxy_refuses_reach_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abc"))
    pods.refused |= set("abc")
    with pytest.raises(VerificationFailed, match="2 others were not touched"):
        await run_at_once(pods, 3)
    assert pods.log == ["reload a"]


@pytest.mark.parametrize("steps", range(0, 120, 7))
async def test_ended_anywhere_it_goes_on_with_those_that_are_left(
    monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """What is in force is seen, not remembered: nobody is reloaded twice, and the fleet is not begun anew."""
    pods = use(monkeypatch, Pods(*"abcdef"))
    task = asyncio.create_task(run_at_once(pods, 2))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    before = [name for name, done in pods.reloaded.items() if done]
    pods.log.clear()
    works = await run_at_once(pods, 2)
    assert [work.proxy for work in works if work.reloads] == [name for name in "abcdef" if name not in before]
    assert all(pods.reloaded.values())


async def test_an_emergency_tries_one_proxy_alone_whatever_becomes_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abcde"))
    pods.refused.add("a")
    seen = Rounds(monkeypatch, pods)
    works = await run_at_once(pods, 2, stragglers=True)
    assert seen.rounds == [["a"], ["b", "c"], ["d", "e"]]
    assert [work.proxy for work in works if work.owes] == ["a"]


async def test_proxies_without_traffic_are_reloaded_together_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods(*"abc"))
    seen = Rounds(monkeypatch, pods)
    await run_at_once(pods, 4, stragglers=True, first_alone=False)
    assert seen.rounds == [["a", "b", "c"]]


def let_go(monkeypatch: pytest.MonkeyPatch, pods: Pods, *names: str) -> None:
    """All proxies carry traffic; those with these names do not come back from their reload."""

    async def stand(*_: Any) -> Standing:
        return Standing(serving=True, answers=frozenset({200}))

    async def come_back(_kube: Any, proxy: Proxy, before: Standing, _token: str) -> None:
        assert before.serving
        pods.log.append(f"back {proxy.name}")
        if proxy.name in names:
            raise VerificationFailed(f"proxy {proxy.name}: not ready again", reason="NotReadyAgain")

    monkeypatch.setattr(reloading, "find_standing", stand)
    monkeypatch.setattr(reloading, "wait_until_back", come_back)


async def test_the_next_proxy_is_reloaded_when_the_one_before_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b"))
    let_go(monkeypatch, pods)
    assert await run(pods) == {"a": 1, "b": 1}
    assert pods.log == ["reload a", "back a", "reload b", "back b"]


async def test_while_a_proxy_is_missed_no_other_one_is_reloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b", "c"))
    let_go(monkeypatch, pods, "b")
    with pytest.raises(VerificationFailed) as caught:
        await run(pods)
    assert pods.log == ["reload a", "back a", "reload b", "back b"]
    assert caught.value.message == "proxy b: not ready again; 1 others were not touched"


async def test_a_proxy_that_is_lost_by_its_own_reload_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a", "b"))
    let_go(monkeypatch, pods)
    original = pods.exec

    async def vanish(*words: Any) -> ExecResult:
        result = await original(*words)
        if words[-1] == ["kong", "reload"]:
            pods.down.add(words[1])
        return result

    monkeypatch.setattr(reloading.streaming, "exec", vanish)
    with pytest.raises(VerificationFailed, match="proxy b: not reloaded, because a did not come back"):
        await run(pods)


@pytest.mark.parametrize(("names", "reloaded"), [("ab", "a"), ("abc", "abc"), ("abcd", "abcd")])
async def test_an_emergency_goes_on_while_enough_carry_the_traffic(
    monkeypatch: pytest.MonkeyPatch, names: str, reloaded: str
) -> None:
    pods = use(monkeypatch, Pods(*names))
    let_go(monkeypatch, pods, "a")
    kube: Any = object()
    works = await distribute(pods.proxies, Distribution(kube, FILES, pods.proof, spare=1, stragglers=True))
    assert [line[-1] for line in pods.log if line.startswith("reload")] == list(reloaded)
    assert {work.proxy for work in works if work.owes} == set(names) - set(reloaded), (
        "who gave the proof owes nothing"
    )


async def test_one_good_handshake_between_bad_ones_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a"))
    answers = iter(["old", "", "old", "", ""])
    proof_calls = 0

    async def proof(_: Proxy) -> Seen:
        nonlocal proof_calls
        proof_calls += 1
        return Seen(next(answers))

    kube: Any = object()
    await distribute(pods.proxies, Distribution(kube, FILES, proof))
    assert proof_calls == 5, "two in a row count: old workers still answer for a while"
