"""What a loaded hash means, and when it is let be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from konverge.decide.drifting import GRACE, is_syncing, judge_drift
from konverge.model.drift import DriftAction, DriftKind
from konverge.model.proxy import ZERO_HASH
from konverge.model.revision import RevisionRecord, RevisionSpec

DESIRED, OLDER, STRANGE = "d" * 32, "0" * 31 + "1", "f" * 32
KNOWN = {DESIRED: 12, OLDER: 9}
NOW = datetime(2026, 5, 1, tzinfo=UTC)
K, A = DriftKind, DriftAction


@pytest.mark.parametrize(
    ("loaded", "syncing", "kind", "revision", "words"),
    [
        (DESIRED, False, K.IN_SYNC, 12, "is loaded"),
        (DESIRED, True, K.IN_SYNC, 12, "is loaded"),
        (OLDER, False, K.OLD, 9, "runs revision 9"),
        (OLDER, True, K.SYNCING, 9, "revision 9"),
        (ZERO_HASH, False, K.LOST, 0, "lost its configuration"),
        (ZERO_HASH, True, K.SYNCING, 0, "no configuration yet"),
        (STRANGE, False, K.FOREIGN, 0, f"{STRANGE} belongs to no revision"),
        (STRANGE, True, K.FOREIGN, 0, "by hand"),
        (None, False, K.SILENT, 0, "does not answer"),
        ("", True, K.SILENT, 0, "does not answer"),
    ],
)
def test_a_hash_has_one_meaning(loaded: str | None, syncing: bool, kind: K, revision: int, words: str) -> None:
    drift = judge_drift(loaded, DESIRED, KNOWN, syncing=syncing)
    assert (drift.kind, drift.revision) == (kind, revision)
    assert words in drift.outcome.message
    assert drift.outcome.reason == kind.value


@pytest.mark.parametrize(
    ("loaded", "policy", "serving", "action"),
    [
        (DESIRED, "heal", True, A.NONE),
        (OLDER, "heal", True, A.HEAL),
        (STRANGE, "heal", True, A.HEAL),
        (STRANGE, "report", True, A.REPORT),
        (OLDER, "report", True, A.REPORT),
        (ZERO_HASH, "report", True, A.HEAL),
        (STRANGE, "report", False, A.HEAL),
        (OLDER, "report", False, A.HEAL),
        (None, "heal", True, A.WAIT),
        (DESIRED, "report", True, A.NONE),
    ],
)
def test_the_policy_protects_what_a_serving_proxy_runs_and_nothing_else(
    loaded: str | None, policy: Literal["heal", "report"], serving: bool, action: A
) -> None:
    assert judge_drift(loaded, DESIRED, KNOWN, policy=policy, serving=serving).action is action


@pytest.mark.parametrize("policy", ["heal", "report"])
def test_during_a_sync_what_will_be_reached_is_waited_for(policy: Literal["heal", "report"]) -> None:
    assert judge_drift(OLDER, DESIRED, KNOWN, policy=policy, syncing=True).action is A.WAIT


def test_only_three_kinds_are_drift() -> None:
    assert {kind for kind in K if kind.drifted} == {K.LOST, K.OLD, K.FOREIGN}


def record(created: datetime | None) -> RevisionRecord:
    return RevisionRecord(spec=RevisionSpec(fleet="shop", number=1, hash=DESIRED, size=1, created=created))


@pytest.mark.parametrize(
    ("created", "syncing"),
    [(NOW, True), (NOW - GRACE + timedelta(seconds=1), True), (NOW - GRACE, False), (None, False)],
)
def test_a_sync_may_be_under_way_for_a_while_after_a_revision_was_made(
    created: datetime | None, syncing: bool
) -> None:
    assert is_syncing((record(NOW - timedelta(days=3)), record(created)), NOW) is syncing


def test_without_revisions_nothing_is_under_way() -> None:
    assert not is_syncing((), NOW)
