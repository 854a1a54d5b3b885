"""Rollbacks: where one goes by default, what is refused, and that the pin holds."""

from __future__ import annotations

import pytest
from drifting_town import KEY, Town, document

from konverge.errors import CheckRefused, NotFound, VerificationFailed
from konverge.kong.declarative import serialise
from konverge.kube.resources import PROXY_FLEETS, SECRETS
from konverge.model.condition import find_condition
from konverge.model.fleet import FleetSpec
from konverge.model.revision import RevisionOutcome
from konverge.operate.fleets import apply_fleet
from konverge.operate.rolling_back import RollbackPlan, number_in_force, pin_revision, plan_rollback

GOOD, HARMFUL, PENDING = RevisionOutcome.GOOD, RevisionOutcome.HARMFUL, RevisionOutcome.PENDING


async def build(*outcomes: RevisionOutcome, current: int = 0, good: int = 0) -> Town:
    """Revisions 1, 2, ... with these outcomes; each has one route more than the one before."""
    town = Town()
    stored = []
    for count, outcome in enumerate(outcomes, 1):
        content = serialise(document(*(f"/{i}" for i in range(count)), key=f"{KEY}-{count}"))
        stored.append(await town.store(content, None if outcome is PENDING else outcome))
    if stored:
        revision = stored[(current or len(stored)) - 1]
        town.enforce(revision, good)
    return town


async def plan(town: Town, to: int | None = None, *, force: bool = False) -> RollbackPlan:
    return await plan_rollback(town.kube, await town.fleet(), to, force=force)


@pytest.mark.parametrize(
    ("outcomes", "current", "expected"),
    [
        ((GOOD, GOOD, GOOD), 3, 2),
        ((GOOD, HARMFUL, GOOD), 3, 1),
        ((GOOD, PENDING, GOOD), 3, 1),
        ((GOOD, GOOD, HARMFUL), 3, 2),
        ((GOOD, GOOD, GOOD), 2, 1),
    ],
)
async def test_by_default_it_goes_to_the_last_good_one_before_the_present(
    outcomes: tuple[RevisionOutcome, ...], current: int, expected: int
) -> None:
    found = await plan(await build(*outcomes, current=current))
    assert (found.present, found.target.number, found.changes) == (current, expected, True)


async def test_what_the_fleet_calls_good_counts_without_a_verdict() -> None:
    assert (await plan(await build(PENDING, PENDING, PENDING, good=2))).target.number == 2


async def test_a_damaged_revision_is_passed_over() -> None:
    town = await build(GOOD, GOOD, GOOD)
    for secret in town.kube.all(SECRETS):
        if secret["metadata"]["labels"]["konverge.dev/revision"] == "2":
            town.kube.drop(SECRETS, secret["metadata"]["name"])
    assert (await plan(town)).target.number == 1
    with pytest.raises(VerificationFailed, match="shop-000002"):
        await plan(town, 2)


@pytest.mark.parametrize("outcomes", [(), (GOOD,), (HARMFUL, GOOD), (PENDING, GOOD)])
async def test_where_there_is_nothing_to_go_back_to_it_says_so(outcomes: tuple[RevisionOutcome, ...]) -> None:
    with pytest.raises(NotFound) as caught:
        await plan(await build(*outcomes))
    assert caught.value.reason == "NothingToGoBackTo"


async def test_the_differences_are_from_the_present_to_the_target_and_hide_secrets() -> None:
    found = await plan(await build(GOOD, GOOD))
    assert [(d.change, d.entity) for d in found.differences if d.kind == "routes"] == [("only-left", "route r1")]
    assert KEY not in "".join(map(str, found.differences))


async def test_a_harmful_revision_is_refused_unless_forced() -> None:
    town = await build(HARMFUL, GOOD)
    with pytest.raises(CheckRefused, match=r"Revision 1 .* harmful: Because: of it; --force") as caught:
        await plan(town, 1)
    assert caught.value.reason == "HarmfulRevision"
    assert (await plan(town, 1, force=True)).target.number == 1


async def test_an_unknown_revision_names_those_that_exist() -> None:
    with pytest.raises(NotFound, match="has no revision 9; it has: 2, 1"):
        await plan(await build(GOOD, GOOD), 9)


async def test_a_present_revision_that_is_gone_only_costs_the_differences() -> None:
    town = await build(GOOD, GOOD, GOOD)
    for secret in town.kube.all(SECRETS):
        if secret["metadata"]["labels"]["konverge.dev/revision"] == "3":
            town.kube.drop(SECRETS, secret["metadata"]["name"])
    found = await plan(town)
    assert (found.target.number, found.differences) == (2, ())
    assert "cannot be told" in found.note


async def test_to_the_present_one_changes_nothing() -> None:
    assert not (await plan(await build(GOOD, GOOD), 2)).changes


async def test_a_pin_is_what_is_in_force_and_shows_as_a_condition() -> None:
    town = await build(GOOD, GOOD)
    fleet = await pin_revision(town.kube, await town.fleet(), 1)
    assert (fleet.spec.pinned_revision, number_in_force(fleet)) == (1, 1)
    found = find_condition((await town.fleet()).status.conditions, "Pinned")
    assert found is not None
    assert (found.status, "revision 1" in found.message) == ("True", True)
    released = await pin_revision(town.kube, await town.fleet(), 0)
    assert number_in_force(released) == 2
    found = find_condition((await town.fleet()).status.conditions, "Pinned")
    assert found is not None
    assert found.status == "False"


async def test_pinning_again_writes_nothing() -> None:
    town = await build(GOOD, GOOD)
    await pin_revision(town.kube, await town.fleet(), 1)
    town.kube.calls.clear()
    await pin_revision(town.kube, await town.fleet(), 1)
    assert town.kube.writes == []


async def test_a_fleet_file_without_a_pin_does_not_release_one() -> None:
    town = await build(GOOD, GOOD)
    await pin_revision(town.kube, await town.fleet(), 1)
    await apply_fleet(town.kube, "shop", "default", FleetSpec(proxy_service="s", replicas=5))
    spec = town.kube.one(PROXY_FLEETS, "shop")["spec"]
    assert (spec["pinnedRevision"], spec["replicas"]) == (1, 5)
