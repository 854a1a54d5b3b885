"""Values: frozen, camelCase on the wire and back without loss, conditions keep their time, the journal its order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from konverge.model.base import Value
from konverge.model.condition import Condition, ObjectRef, Outcome, find_condition, set_condition
from konverge.model.fleet import Counts, Fleet, FleetSpec, FleetStatus, Identity, Rollout
from konverge.model.migration import (
    Migration,
    MigrationPhase,
    MigrationSpec,
    MigrationStatus,
    RollbackPoint,
    Step,
    StepRecord,
    StepState,
)
from konverge.model.proxy import Mtls, Phase, Proxy, ProxyOutcome, ProxyStatus
from konverge.model.revision import Revision, RevisionSpec, revision_name
from konverge.model.rotation import CertificateView
from konverge.model.target import Target

NOW = datetime(2026, 5, 1, 12, 30, 15, tzinfo=UTC)
CONDITION = Condition(type="Ready", status="True", reason="R", message="m", last_transition_time=NOW)
VALUES: list[Value] = [
    Outcome(reason="R", message="m", hint="h"),
    CONDITION,
    ObjectRef(kind="Ingress", name="a", namespace="n"),
    ObjectRef(kind="Ingress", name="a", uid="u"),
    Rollout(canary=2, soak_seconds=1.5),
    Identity(key_type="ed25519"),
    FleetSpec(proxy_service="s", features={"X": True}, paused=True),
    FleetStatus(last_sync=NOW, counts=Counts(total=3), conditions=(CONDITION,), last_good_hash="f"),
    Fleet(name="f", namespace="n", uid="u", spec=FleetSpec(proxy_service="s")),
    StepRecord(step=Step.SHIFT, state=StepState.DONE, started=NOW, finished=NOW, message="m"),
    RollbackPoint(service="s", selector={"a/b": "c"}, replicas=3),
    MigrationSpec(fleet="f", release="r"),
    MigrationStatus(
        phase=MigrationPhase.ROLLING_BACK,
        steps=(StepRecord(step=Step.SYNC),),
        rollback_point=RollbackPoint(service="s", selector={}, replicas=1),
        evidence={"parity": "fine"},
    ),
    Migration(name="m", namespace="n", spec=MigrationSpec(fleet="f", release="r")),
    Proxy(name="p", namespace="n", ip="127.0.0.2", ready=True),
    Mtls(subject="CN=x", expires=NOW, trusted_authorities=("CN=a",)),
    ProxyStatus(phase=Phase.QUARANTINED, loaded_revision=0, last_push=NOW, conditions=(CONDITION,)),
    ProxyOutcome(proxy="p", ok=True, outcome=Outcome(reason="R"), mtls=Mtls(subject="x")),
    RevisionSpec(fleet="f", number=1, hash="h", size=2, created=NOW),
    CertificateView(role="r", subject="s", issuer="i", serial="1", expires=NOW, renew_at=NOW, due=False),
    Target(fleet="f", kubeconfig="/k"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_json_and_back_is_the_same_value(value: Value) -> None:
    assert type(value).model_validate(value.to_json()) == value


def keys_of(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [k for k in node if "/" not in k] + [k for v in node.values() for k in keys_of(v)]
    return [k for item in node for k in keys_of(item)] if isinstance(node, list) else []


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_the_wire_is_camel_case_without_absent_fields(value: Value) -> None:
    document = value.to_json()
    assert not [key for key in keys_of(document) if "_" in key]
    assert None not in document.values()


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_values_are_frozen_and_tolerant_of_what_they_do_not_know(value: Value) -> None:
    field = next(iter(type(value).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(value, field, getattr(value, field))
    assert type(value).model_validate({**value.to_json(), "fieldOfTheFuture": {"a": 1}}) == value


def test_replace_validates_and_leaves_the_original() -> None:
    spec = FleetSpec(proxy_service="s")
    assert spec.replace(replicas=7).replicas == 7
    assert spec.replicas == 3
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        spec.replace(replicas=-1)


def test_replace_keeps_nested_values() -> None:
    status = FleetStatus(counts=Counts(total=4), conditions=(CONDITION,))
    assert status.replace(current_revision=2) == FleetStatus(
        counts=Counts(total=4), conditions=(CONDITION,), current_revision=2
    )


@pytest.mark.parametrize(
    ("holds", "status"), [(True, "True"), (False, "False"), (None, "Unknown")], ids=["yes", "no", "unknown"]
)
def test_a_condition_is_true_false_or_unknown(holds: bool | None, status: str) -> None:
    conditions = set_condition((), "Synced", holds, Outcome(reason="Why", message="so"), NOW)
    assert conditions == (
        Condition(type="Synced", status=status, reason="Why", message="so", last_transition_time=NOW),  # type: ignore[arg-type]
    )


def test_the_time_moves_with_the_status_and_not_with_the_reason() -> None:
    later, last = NOW + timedelta(minutes=1), NOW + timedelta(minutes=2)
    first = set_condition((), "Synced", True, Outcome(reason="A"), NOW)
    second = set_condition(first, "Synced", True, Outcome(reason="B"), later)
    third = set_condition(second, "Synced", False, Outcome(reason="B"), last)
    assert [(c[0].reason, c[0].last_transition_time) for c in (first, second, third)] == [
        ("A", NOW),
        ("B", NOW),
        ("B", last),
    ]


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from([True, False, None])), max_size=12))
def test_there_is_one_condition_of_each_type_and_it_is_the_last(changes: list[tuple[str, bool | None]]) -> None:
    conditions: tuple[Condition, ...] = ()
    for index, (kind, holds) in enumerate(changes):
        conditions = set_condition(conditions, kind, holds, Outcome(reason=f"R{index}"), NOW)
    assert sorted(c.type for c in conditions) == sorted({kind for kind, _ in changes})
    for kind, index in {kind: index for index, (kind, _) in enumerate(changes)}.items():
        found = find_condition(conditions, kind)
        assert found is not None
        assert found.reason == f"R{index}"
    assert find_condition(conditions, "D") is None


@given(st.permutations(list(Step)))
def test_the_journal_is_in_the_order_of_the_steps(order: list[Step]) -> None:
    status = MigrationStatus()
    for step in order:
        status = status.with_record(StepRecord(step=step, state=StepState.DONE))
    assert [record.step for record in status.steps] == list(Step)
    changed = status.with_record(StepRecord(step=Step.SYNC, state=StepState.FAILED))
    assert len(changed.steps) == len(Step)
    assert changed.record(Step.SYNC).state is StepState.FAILED
    assert status.record(Step.SYNC).state is StepState.DONE


def test_a_step_takes_the_time_between_its_ends() -> None:
    record = StepRecord(step=Step.SYNC, started=NOW)
    assert record.seconds is None
    assert record.replace(finished=NOW + timedelta(seconds=2.5)).seconds == 2.5
    assert MigrationStatus().record(Step.SYNC) == StepRecord(step=Step.SYNC)


def test_names_are_derived_from_the_fleet_and_sort_by_number() -> None:
    fleet = Fleet(name="shop", namespace="n", spec=FleetSpec(proxy_service="s"))
    names = [
        fleet.deployment,
        fleet.admin_service,
        fleet.controller,
        fleet.proxy_secret,
        fleet.controller_secret,
        fleet.authority_secret,
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith("shop-") for name in names)
    assert sorted(revision_name("shop", n) for n in (10, 9, 100)) == [revision_name("shop", n) for n in (9, 10, 100)]


def test_the_hash_is_the_md5_of_the_bytes_and_the_bytes_are_not_shown() -> None:
    revision = Revision(number=1, content=b"hello")
    assert revision.hash == "5d41402abc4b2a76b9719d911017c592"
    assert "hello" not in repr(revision)


@pytest.mark.parametrize("fleet", ["", "x" * 51])
def test_a_target_has_a_name_that_fits(fleet: str) -> None:
    with pytest.raises(ValidationError):
        Target(fleet=fleet)


def test_references_read_like_paths() -> None:
    assert str(ObjectRef(kind="Ingress", name="web", namespace="shop")) == "Ingress/shop/web"
    assert str(ObjectRef(kind="KongClusterPlugin", name="cors")) == "KongClusterPlugin//cors"
    assert "uid" not in ObjectRef(kind="Ingress", name="web").to_json()
