"""Rotation steps: nothing when nothing is due, and a begun rotation is finished from wherever it was left."""

from __future__ import annotations

import pytest

from konverge.decide.rotating import (
    AUTHORITY_STEPS,
    LEAF_STEPS,
    SHORT_STEPS,
    StoredIdentities,
    count_at_once,
    find_blockers,
    find_revoked,
    plan_rotation,
)
from konverge.errors import UsageError
from konverge.model.rotation import ProxyIdentity, RotationKind, RotationStep

OLD, NEW = "old", "new"


def seen(**changes: object) -> StoredIdentities:
    base: dict[str, object] = {
        "current": OLD,
        "successor": None,
        "controller_bundle": frozenset({OLD}),
        "proxy_bundle": frozenset({OLD}),
        "controller_issuer": OLD,
        "proxy_issuer": OLD,
    }
    return StoredIdentities(**(base | changes))  # type: ignore[arg-type]


def test_nothing_is_due() -> None:
    assert plan_rotation(RotationKind.AUTO, seen()) == ()


def test_what_is_due_is_rotated() -> None:
    assert plan_rotation(RotationKind.AUTO, seen(leaf_due=True)) == LEAF_STEPS
    assert plan_rotation(RotationKind.AUTO, seen(authority_due=True, leaf_due=True)) == AUTHORITY_STEPS


def test_what_is_asked_for_is_rotated() -> None:
    assert plan_rotation(RotationKind.LEAF, seen()) == LEAF_STEPS
    assert plan_rotation(RotationKind.AUTHORITY, seen())[0] is RotationStep.PREPARE


BOTH = frozenset({OLD, NEW})


@pytest.mark.parametrize(
    ("state", "first"),
    [
        ({"successor": NEW}, RotationStep.TRUST_BOTH),
        ({"successor": NEW, "controller_bundle": BOTH}, RotationStep.TRUST_BOTH),
        ({"successor": NEW, "controller_bundle": BOTH, "proxy_bundle": BOTH}, RotationStep.TRUST_BOTH),
        (
            {"successor": NEW, "controller_bundle": BOTH, "proxy_bundle": BOTH, "proxy_issuer": NEW},
            RotationStep.REISSUE,
        ),
        (
            {
                "successor": NEW,
                "controller_bundle": BOTH,
                "proxy_bundle": BOTH,
                "proxy_issuer": NEW,
                "controller_issuer": NEW,
            },
            RotationStep.SWITCH,
        ),
        (
            {
                "successor": NEW,
                "controller_bundle": frozenset({NEW}),
                "proxy_bundle": frozenset({NEW}),
                "proxy_issuer": NEW,
                "controller_issuer": NEW,
            },
            RotationStep.SWITCH,
        ),
    ],
)
@pytest.mark.parametrize("kind", [RotationKind.AUTO, RotationKind.LEAF, RotationKind.AUTHORITY])
def test_a_begun_rotation_goes_on_where_it_was_left(
    kind: RotationKind, state: dict[str, object], first: RotationStep
) -> None:
    steps = plan_rotation(kind, seen(**state))
    assert steps[0] is first
    assert steps[-1] is RotationStep.RETIRE


def test_an_authority_that_this_very_request_has_made_is_not_replaced_again() -> None:
    assert plan_rotation(RotationKind.AUTHORITY, seen(authority_fresh=True)) == ()


def test_a_rolling_restart_takes_the_short_way() -> None:
    assert plan_rotation(RotationKind.AUTHORITY, seen(), short=True) == SHORT_STEPS


@pytest.mark.parametrize(
    ("state", "revoked", "steps"),
    [
        ({}, OLD, SHORT_STEPS),
        ({}, "", SHORT_STEPS),
        ({}, "gone", ()),
        ({"successor": NEW}, OLD, SHORT_STEPS[1:]),
        ({"successor": NEW}, NEW, (*SHORT_STEPS[1:], *SHORT_STEPS)),
    ],
)
def test_an_emergency(state: dict[str, object], revoked: str, steps: tuple[RotationStep, ...]) -> None:
    assert plan_rotation(RotationKind.EMERGENCY, seen(**state), revoked=revoked) == steps


def proxy(name: str = "p", **changes: object) -> ProxyIdentity:
    base: dict[str, object] = {"proxy": name, "serial": "1", "authority": OLD, "trusts": (OLD,), "accepted": True}
    return ProxyIdentity(**(base | changes))  # type: ignore[arg-type]


def test_what_a_proxy_missed_is_made_up_for() -> None:
    stored = seen(proxy_serial="2")
    assert plan_rotation(RotationKind.AUTO, stored, [proxy()]) == (RotationStep.REISSUE,)
    assert plan_rotation(RotationKind.AUTO, stored, [proxy(serial="2")]) == ()
    assert plan_rotation(RotationKind.AUTO, stored, [proxy(serial="2", trusts=())]) == (RotationStep.REISSUE,)
    assert plan_rotation(RotationKind.AUTO, stored, [proxy(reachable=False)]) == ()


MOVED: dict[str, object] = {
    "successor": NEW,
    "controller_bundle": BOTH,
    "proxy_bundle": BOTH,
    "proxy_issuer": NEW,
    "controller_issuer": NEW,
}
READY: dict[str, object] = {"authority": NEW, "trusts": (OLD, NEW)}


@pytest.mark.parametrize("step", list(RotationStep))
def test_nothing_stands_in_the_way_of_a_step_whose_time_has_come(step: RotationStep) -> None:
    assert find_blockers(step, seen(**MOVED), [proxy(**READY)]) == ()


@pytest.mark.parametrize("step", [RotationStep.SWITCH, RotationStep.RETIRE])
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"trusts": (OLD,)}, "it does not trust the new authority"),
        ({"authority": OLD}, "it shows a certificate of the old authority"),
    ],
)
def test_a_proxy_that_is_not_ready_forbids_the_step(step: RotationStep, changes: dict[str, object], why: str) -> None:
    (found,) = find_blockers(step, seen(**MOVED), [proxy(**READY), proxy("late", **(READY | changes))])
    assert (found.name, found.why, found.absent) == ("late", why, False)
    assert str(found) == f"late ({why})"


@pytest.mark.parametrize("step", list(RotationStep))
def test_an_absent_proxy_holds_up_what_would_make_it_a_stranger_and_nothing_else(step: RotationStep) -> None:
    absent = proxy("away", reachable=False, seen="refused")
    held_up = step in (RotationStep.SWITCH, RotationStep.RETIRE)
    assert [b.absent for b in find_blockers(step, seen(**MOVED), [proxy(**READY), absent])] == [True] * held_up
    assert find_blockers(step, seen(**MOVED), [proxy(**READY), absent], emergency=True) == ()


def test_an_emergency_leaves_stragglers_but_not_everybody() -> None:
    late = [proxy("a", trusts=(OLD,)), proxy("b", trusts=(OLD,))]
    stored = seen(**MOVED)
    assert find_blockers(RotationStep.SWITCH, stored, [proxy(**READY), *late], emergency=True) == ()
    assert len(find_blockers(RotationStep.SWITCH, stored, late, emergency=True)) == 2


def test_the_controller_itself_can_be_in_the_way() -> None:
    early = seen(**(MOVED | {"controller_issuer": OLD}))
    assert [b.name for b in find_blockers(RotationStep.RETIRE, early, [], emergency=True)] == ["the controller"]
    stranger = seen(successor=NEW, proxy_bundle=BOTH)
    assert "the controller" in [b.name for b in find_blockers(RotationStep.REISSUE, stranger, [])]


KNOWN = [("0ab1", "ff" * 32, OLD), ("77", "ee" * 32, NEW)]


@pytest.mark.parametrize("word", ["0AB1", "ab1", "0a:b1", "FF" * 32, ":".join(["ff"] * 32), "authority"])
def test_what_is_revoked_is_found_by_serial_fingerprint_or_name(word: str) -> None:
    assert find_revoked(word, KNOWN, OLD) == OLD


@pytest.mark.parametrize("word", ["", "0", "12"])
def test_a_certificate_of_somebody_else_is_not_revoked(word: str) -> None:
    with pytest.raises(UsageError, match="--revoke authority") as caught:
        find_revoked(word, KNOWN, OLD)
    assert caught.value.reason == "UnknownCertificate"


@pytest.mark.parametrize(
    ("share", "proxies", "serving", "count"),
    [
        ("10%", 3, 3, 1),
        ("10%", 19, 19, 1),
        ("10%", 20, 20, 2),
        ("10%", 300, 300, 30),
        ("10%", 300, 12, 6),
        ("100%", 300, 300, 150),
        ("100%", 3, 3, 1),
        (7, 300, 300, 7),
        (7, 10, 10, 5),
        (1, 300, 300, 1),
        ("50%", 10, 0, 1),
    ],
)
def test_a_share_of_the_fleet_is_reloaded_at_once(share: int | str, proxies: int, serving: int, count: int) -> None:
    assert count_at_once(share, proxies, serving) == count
