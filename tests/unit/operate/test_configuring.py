"""One proxy is brought to a revision: identified, compared, pushed, read back, probed; failures have reasons."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from konverge.errors import Forbidden, Unavailable
from konverge.kong.outcomes import (
    Busy,
    EntityError,
    Exiting,
    FieldError,
    IdentityCause,
    IdentityRefused,
    PushOutcome,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unexpected,
    Unknown,
    Unreachable,
    UnreachableCause,
)
from konverge.model.condition import ObjectRef
from konverge.model.proxy import ZERO_HASH, Mtls, Phase, Proxy
from konverge.model.revision import Revision
from konverge.operate import configuring
from konverge.operate.configuring import ATTEMPTS, configure_proxy, slug
from konverge.operate.ports import DataPath

REVISION = Revision(number=7, content=b'{"_format_version":"3.0"}', marker="m7")
EXPIRES = datetime(2030, 1, 1, tzinfo=UTC)


class FakeGateway:
    """Holds a hash; each push is answered by the next of ``answers`` and may store."""

    def __init__(self, *answers: PushOutcome, loaded: str = ZERO_HASH, stores: Callable[[int], bool] | None = None):
        self.proxy = Proxy(name="p1", namespace="ns", ip="127.0.0.2")
        self.answers = list(answers)
        self.loaded = loaded
        self.stores = stores or (lambda attempt: isinstance(self.answers[attempt], Stored))
        self.pushes = 0
        self.probes = [True]
        self.calls: list[str] = []

    async def identify(self) -> Mtls:
        self.calls.append("identify")
        return Mtls(subject="CN=p1", expires=EXPIRES)

    async def version(self) -> str:
        return "3.9.1"

    async def loaded_hash(self) -> str:
        self.calls.append("hash")
        return self.loaded

    async def push(self, content: bytes) -> PushOutcome:
        self.calls.append("push")
        attempt = min(self.pushes, len(self.answers) - 1)
        self.pushes += 1
        if self.stores(attempt):
            self.loaded = REVISION.hash
        return self.answers[attempt]

    async def probe(self, marker: str, attempts: int) -> DataPath:
        self.calls.append("probe")
        good = self.probes.pop(0) if len(self.probes) > 1 else self.probes[0]
        return DataPath(attempts, attempts if good else 1, "" if good else "3: HTTP 404 instead of 200")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(configuring, "PROBE_PAUSE", 0.0)
    monkeypatch.setattr(configuring, "PROBE_SECONDS", 0.2)


async def test_a_fresh_proxy_is_configured_in_order() -> None:
    gateway = FakeGateway(Stored(REVISION.hash))
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.ok
    assert outcome.changed
    assert outcome.phase is Phase.SERVING
    assert outcome.loaded_hash == REVISION.hash
    assert outcome.mtls is not None
    assert gateway.calls == ["identify", "hash", "push", "hash", "probe"]


async def test_a_proxy_that_has_it_is_not_pushed_to() -> None:
    gateway = FakeGateway(Stored(REVISION.hash), loaded=REVISION.hash)
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.ok
    assert not outcome.changed
    assert gateway.pushes == 0


@pytest.mark.parametrize(
    ("answer", "reason", "pushes"),
    [
        (Refused(), "ConfigurationRefused", 1),
        (TooLarge(SizeLimit.BODY), "ConfigurationTooLarge", 1),
        (IdentityRefused(IdentityCause.EXPIRED, "ours expired"), "IdentityRefused", 1),
        (Unexpected(418, "teapot"), "NotAnAdminApi", 1),
        (Busy(10.0), "ProxyBusy", ATTEMPTS),
        (Exiting(), "ProxyExiting", ATTEMPTS),
        (Unreachable(UnreachableCause.REFUSED), "ProxyUnreachable", ATTEMPTS),
        (Unknown("no answer within 30 s"), "PushUnknown", ATTEMPTS),
    ],
)
async def test_every_failure_has_its_reason_and_its_bound(answer: PushOutcome, reason: str, pushes: int) -> None:
    gateway = FakeGateway(answer)
    outcome = await configure_proxy(gateway, REVISION)
    assert not outcome.ok
    assert outcome.phase is Phase.QUARANTINED
    assert outcome.outcome.reason == reason
    assert outcome.outcome.hint == f"reference/proxy-reasons.md#{slug(reason)}"
    assert gateway.pushes == pushes


async def test_an_unknown_outcome_that_was_stored_is_not_pushed_again() -> None:
    gateway = FakeGateway(Unknown("HTTP 500", 500), stores=lambda _: True)
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.ok
    assert gateway.pushes == 1


async def test_a_busy_proxy_is_asked_again() -> None:
    gateway = FakeGateway(Busy(0.1), Stored(REVISION.hash))
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.ok
    assert outcome.attempts == 2


async def test_stored_with_another_hash_is_no_success() -> None:
    gateway = FakeGateway(Stored("f" * 32), stores=lambda _: False)
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.outcome.reason == "HashMismatch"


async def test_routers_are_waited_for() -> None:
    gateway = FakeGateway(Stored(REVISION.hash))
    gateway.probes = [False, False, True]
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.ok
    assert gateway.calls.count("probe") == 3


async def test_a_data_path_that_never_follows_is_a_failure() -> None:
    gateway = FakeGateway(Stored(REVISION.hash))
    gateway.probes = [False]
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.outcome.reason == "DataPathFailed"
    assert "1 of" in outcome.outcome.message


async def test_nothing_is_sent_over_an_unproven_channel() -> None:
    gateway = FakeGateway(Stored(REVISION.hash))

    async def refuse() -> Mtls:
        raise Forbidden("the proxy does not trust us", reason="IdentityRefused")

    gateway.identify = refuse  # type: ignore[method-assign]
    outcome = await configure_proxy(gateway, REVISION)
    assert outcome.outcome.reason == "IdentityRefused"
    assert gateway.calls == []


async def test_a_proxy_that_goes_away_is_an_outcome_not_an_exception() -> None:
    gateway = FakeGateway(Stored(REVISION.hash))

    async def vanish() -> str:
        raise Unavailable("gone")

    gateway.version = vanish  # type: ignore[method-assign]
    assert (await configure_proxy(gateway, REVISION)).outcome.reason == "Unavailable"


async def test_a_refusal_names_the_object_and_the_field() -> None:
    fault = EntityError(
        "route",
        "r1",
        "",
        (FieldError("paths.1", "should start with: /"),),
        object=ObjectRef(kind="Ingress", name="web", namespace="shop"),
    )
    outcome = await configure_proxy(FakeGateway(Refused((fault, fault))), REVISION)
    assert "Ingress/shop/web (route): paths.1: should start with: /" in outcome.outcome.message
