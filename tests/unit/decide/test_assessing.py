"""What is said of a fleet and of a proxy: every state has its word, every condition its reason, at rest the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from konverge.decide.assessing import State, assess_fleet, assess_status, classify_proxy
from konverge.model.condition import Condition, Outcome, find_condition
from konverge.model.fleet import FleetSpec, FleetStatus
from konverge.model.proxy import Mtls, Phase, ProxyStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SPEC = FleetSpec(proxy_service="s")
GOOD = ProxyStatus(
    phase=Phase.SERVING,
    desired_hash="d",
    loaded_hash="d",
    loaded_revision=3,
    synced=True,
    traffic_ready=True,
    reason="Configured",
    mtls=Mtls(expires=NOW + timedelta(days=20)),
)


def but(**changes: Any) -> ProxyStatus:
    return GOOD.model_copy(update=changes)


OUT = {"synced": False, "traffic_ready": False}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (GOOD, State.SERVING),
        (but(mtls=Mtls()), State.SERVING),
        (but(mtls=Mtls(expires=NOW + timedelta(days=6))), State.EXPIRING),
        (but(mtls=Mtls(expires=NOW - timedelta(days=6))), State.EXPIRING),
        (but(synced=False, loaded_hash="c"), State.OUTDATED),
        (but(**OUT, loaded_hash="", phase=Phase.DISCOVERED), State.JOINING),
        (but(**OUT, loaded_hash="c", phase=Phase.IDENTIFIED), State.JOINING),
        (but(**OUT, loaded_hash="c"), State.DRIFTED),
        (but(**OUT, phase=Phase.QUARANTINED), State.QUARANTINED),
        (but(phase=Phase.QUARANTINED), State.QUARANTINED),
    ],
)
def test_a_proxy_has_one_word(status: ProxyStatus, state: State) -> None:
    assert classify_proxy(status, NOW) is state


def judge(kind: str, proxies: dict[str, ProxyStatus], **spec: Any) -> Condition:
    found = find_condition(assess_fleet(SPEC.replace(**spec), (), proxies, NOW), kind)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("proxies", "spec", "kind", "status", "reason", "part"),
    [
        ({"a": GOOD, "b": GOOD}, {}, "Ready", "True", "AllServing", "2 proxies in sync"),
        ({}, {}, "Ready", "False", "NoProxies", "no proxy"),
        ({"a": GOOD}, {"paused": True}, "Ready", "False", "Paused", "spec.paused"),
        (
            {"a": GOOD, "b": but(**OUT, reason="Busy", message="m")},
            {},
            "Ready",
            "False",
            "ProxiesNotReady",
            "b: Busy: m",
        ),
        ({"b": ProxyStatus()}, {}, "Ready", "False", "ProxiesNotReady", "b: not visited yet"),
        ({"a": GOOD}, {}, "Quarantined", "False", "NoneQuarantined", ""),
        (
            {"a": but(phase=Phase.QUARANTINED)},
            {},
            "Quarantined",
            "True",
            "ProxiesQuarantined",
            "1 proxy set apart: a",
        ),
        ({"a": but(loaded_hash="c")}, {}, "Drift", "True", "ProxiesDrifted", "a"),
        ({"a": but(loaded_hash="")}, {}, "Drift", "False", "NoneDrifted", ""),
        (
            {"a": but(mtls=Mtls(expires=NOW))},
            {},
            "IdentityExpiring",
            "True",
            "CertificateExpired",
            "2026-05-01T12:00Z",
        ),
        (
            {"a": but(mtls=Mtls(expires=NOW + timedelta(hours=3)))},
            {"identity": {"leafHours": 12}},
            "IdentityExpiring",
            "False",
            "IdentitiesValid",
            "",
        ),
        ({"a": GOOD}, {"pinned_revision": 7}, "Pinned", "True", "Pinned", "revision 7"),
        ({"a": GOOD}, {}, "Paused", "False", "NotPaused", ""),
    ],
)
def test_a_condition_says_why(
    proxies: dict[str, ProxyStatus], spec: dict[str, Any], kind: str, status: str, reason: str, part: str
) -> None:
    found = judge(kind, proxies, **spec)
    assert (found.status, found.reason) == (status, reason)
    assert part in found.message


def test_three_are_named_and_the_rest_is_counted() -> None:
    found = judge("Quarantined", {f"p{n}": but(phase=Phase.QUARANTINED) for n in range(9)})
    assert found.message == "9 proxies set apart: p0, p1, p2 and 6 more"


def test_a_fleet_at_rest_says_the_same_for_ever() -> None:
    proxies = {"a": GOOD, "b": but(phase=Phase.QUARANTINED, mtls=Mtls(expires=NOW + timedelta(days=1)))}
    first = assess_status(SPEC, FleetStatus(), proxies, NOW)
    assert first == assess_status(SPEC, first, proxies, NOW + timedelta(hours=5))
    assert (first.reason, len(first.conditions)) == ("AllServing", 7)


def test_conditions_of_others_stay() -> None:
    other = Condition(type="Other", status="True", reason="R", last_transition_time=NOW)
    assert other in assess_fleet(SPEC, (other,), {}, NOW)


def test_a_fallback_in_force_is_seen_at_a_glance() -> None:
    proxies = {"gw-1": GOOD}
    setback = Outcome(reason="Fallback", message="revision 3 is a fallback without KongPlugin/sample/bad")
    told = assess_status(SPEC, FleetStatus(setback=setback), proxies, NOW)
    found = find_condition(told.conditions, "Setback")
    assert found is not None
    assert (found.status, found.reason, found.message) == ("True", "Fallback", setback.message)
    assert (told.reason, told.message) == ("Fallback", setback.message)
    over = assess_status(SPEC, told.model_copy(update={"setback": None}), proxies, NOW)
    found = find_condition(over.conditions, "Setback")
    assert found is not None
    assert (found.status, found.reason) == ("False", "SourcesInForce")
    assert over.reason == "AllServing"
