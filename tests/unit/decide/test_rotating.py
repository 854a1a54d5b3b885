"""Rotation steps: nothing when nothing is due, and a begun rotation is finished from wherever it was left."""

from __future__ import annotations

import pytest

from konverge.decide.rotating import AUTHORITY_STEPS, LEAF_STEPS, StoredIdentities, plan_rotation
from konverge.model.rotation import RotationKind, RotationStep

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
@pytest.mark.parametrize("kind", list(RotationKind))
def test_a_begun_rotation_goes_on_where_it_was_left(
    kind: RotationKind, state: dict[str, object], first: RotationStep
) -> None:
    steps = plan_rotation(kind, seen(**state))
    assert steps[0] is first
    assert steps[-1] is RotationStep.RETIRE
