"""New identity files come into force: projected first, reloaded until a handshake proves it, refusals named."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from konverge.decide.objects import IDENTITY_PATH
from konverge.errors import Forbidden, Unavailable, VerificationFailed
from konverge.kube.streaming import ExecResult
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.operate import connecting, reloading
from konverge.operate.identities import create_authority, issue_proxies
from konverge.operate.reloading import distribute
from konverge.pki.bundle import build_bundle
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import Handshake, HandshakeReason

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
        self.busy = self.most = 0

    async def exec(self, _kube: Any, pod: str, namespace: str, container: str, command: list[str]) -> ExecResult:
        assert (namespace, container) == ("ns", "proxy")
        if command[0] == "cat":
            name = command[1].removeprefix(f"{IDENTITY_PATH}/")
            if name == "tls.crt":
                self.late[pod] -= 1
            return ExecResult(0, FILES.data[name] if self.late[pod] < 0 else b"old", b"")
        self.log.append(f"reload {pod}")
        assert self.late[pod] < 0, "reloaded before the files were projected"
        if pod in self.refused:
            return ExecResult(1, b"", b"nginx: [emerg] cannot load certificate")
        self.reloaded[pod] = True
        return ExecResult(0, b"", b"")

    async def proof(self, proxy: Proxy) -> str:
        if self.reloaded[proxy.name]:
            self.slow[proxy.name] -= 1
        return "" if self.reloaded[proxy.name] and self.slow[proxy.name] < 0 else "it shows serial 1"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "PAUSE", 0.0)
    monkeypatch.setattr(reloading, "FORCE_SECONDS", 0.05)


def use(monkeypatch: pytest.MonkeyPatch, pods: Pods) -> Pods:
    monkeypatch.setattr(reloading.streaming, "exec", pods.exec)
    return pods


async def run(pods: Pods) -> dict[str, int]:
    kube: Any = object()
    return {r.proxy: r.reloads for r in await distribute(kube, pods.proxies, FILES, pods.proof)}


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


async def test_a_refused_reload_is_named_with_kongs_words_and_holds_nobody_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pods = use(monkeypatch, Pods("a", "b", "c"))
    pods.refused.add("b")
    with pytest.raises(
        VerificationFailed, match=r"proxy b: kong reload ended with 1: nginx: \[emerg\] cannot load"
    ) as caught:
        await run(pods)
    assert caught.value.reason == "NotInForce"
    assert pods.reloaded == {"a": True, "b": False, "c": True}


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


async def test_one_good_handshake_between_bad_ones_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = use(monkeypatch, Pods("a"))
    answers = iter(["old", "", "old", "", ""])
    proof_calls = 0

    async def proof(_: Proxy) -> str:
        nonlocal proof_calls
        proof_calls += 1
        return next(answers)

    kube: Any = object()
    await distribute(kube, pods.proxies, FILES, proof)
    assert proof_calls == 5, "two in a row count: old workers still answer for a while"


@pytest.mark.parametrize(
    ("reason", "kind", "name"),
    [
        (HandshakeReason.CLIENT_REFUSED, Forbidden, "IdentityRefused"),
        (HandshakeReason.SERVER_UNTRUSTED, VerificationFailed, "ServerUntrusted"),
        (HandshakeReason.TLS_FAILED, Unavailable, "ProxyUnreachable"),
        (HandshakeReason.NO_ANSWER, Unavailable, "ProxyUnreachable"),
        (HandshakeReason.UNREACHABLE, Unavailable, "ProxyUnreachable"),
    ],
)
def test_a_handshake_says_which_side_refused(reason: HandshakeReason, kind: type[Exception], name: str) -> None:
    error = connecting.map_handshake(Proxy(name="p1", namespace="ns", ip="127.0.0.2"), Handshake(reason, "why"))
    assert type(error) is kind
    assert error.reason == name
    assert error.message == "Proxy p1 at 127.0.0.2:8444: why"
