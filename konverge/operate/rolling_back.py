"""Goes back to a stored revision and stays there: it is pinned, whatever the sources say, until it is released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from konverge.decide.assessing import assess_status
from konverge.errors import CheckRefused, NotFound, VerificationFailed
from konverge.kong.declarative import Difference, compare
from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_FLEETS
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision, RevisionOutcome, RevisionRecord
from konverge.operate.clock import Clock, utc_now
from konverge.operate.drifting import flatten_revision
from konverge.operate.fleets import list_instances, load_fleet, update_fleet_status
from konverge.operate.revisions import list_records, load_revision


@dataclass(frozen=True, slots=True)
class RollbackPlan:
    """What a rollback leads from and to. ``differences`` are from the revision in force to the target, redacted."""

    present: int
    target: Revision
    record: RevisionRecord
    differences: tuple[Difference, ...]
    note: str = ""
    """Why the differences could not be told."""

    @property
    def changes(self) -> bool:
        """Whether the proxies would get something else than what is in force."""
        return self.present != self.target.number


def number_in_force(fleet: Fleet) -> int:
    """Return the revision that is in force: the pinned one, else the current one; 0 before the first sync."""
    return fleet.spec.pinned_revision or fleet.status.current_revision


async def plan_rollback(
    kube: KubeClient, fleet: Fleet, to: int | None = None, *, force: bool = False
) -> RollbackPlan:
    """Find the revision to go back to and what that changes; nothing is written.

    Without ``to`` it is the newest good revision before the one in force whose bytes are whole. CheckRefused where
    the target is known to be harmful, unless forced; NotFound where there is nothing to go back to.
    """
    records = await list_records(kube, fleet)
    present = number_in_force(fleet)
    if to is None:
        target = await _find_good(kube, fleet, records, present)
    else:
        target = await load_revision(kube, fleet, to)
    record = next(r for r in records if r.number == target.number)
    if record.status.outcome is RevisionOutcome.HARMFUL and not force:
        raise _harmful(fleet, record)
    differences, note = await _compare(kube, fleet, present, target)
    return RollbackPlan(present, target, record, differences, note)


async def _find_good(kube: KubeClient, fleet: Fleet, records: Sequence[RevisionRecord], present: int) -> Revision:
    """Load the newest good revision before the one in force; a damaged one is passed over."""
    named = fleet.status.last_good_revision
    for record in records:
        good = record.status.outcome is RevisionOutcome.GOOD or record.number == named
        if not good or record.number >= present or record.status.outcome is RevisionOutcome.HARMFUL:
            continue
        try:
            return await load_revision(kube, fleet, record.number)
        except VerificationFailed:
            continue
    raise NotFound(
        f"Fleet {fleet.namespace}/{fleet.name} has no good revision before {present or 'the first sync'};"
        f" name one with --to: {', '.join(str(r.number) for r in records) or 'none is stored'}",
        reason="NothingToGoBackTo",
        hint="reference/errors.md#nothing-to-go-back-to",
    )


def _harmful(fleet: Fleet, record: RevisionRecord) -> CheckRefused:
    status = record.status
    return CheckRefused(
        f"Revision {record.number} of fleet {fleet.namespace}/{fleet.name} is known to be harmful:"
        f" {status.reason}: {status.message}; --force pushes it all the same",
        reason="HarmfulRevision",
        hint="reference/errors.md#harmful-revision",
    )


async def _compare(
    kube: KubeClient, fleet: Fleet, present: int, target: Revision
) -> tuple[tuple[Difference, ...], str]:
    if present in (0, target.number):
        return (), ""
    try:
        before = await load_revision(kube, fleet, present)
    except (NotFound, VerificationFailed) as error:
        return (), f"what changes cannot be told: {error.message}"
    return tuple(compare(flatten_revision(before.content), flatten_revision(target.content))), ""


async def pin_revision(kube: KubeClient, fleet: Fleet, number: int, clock: Clock = utc_now) -> Fleet:
    """Set ``spec.pinnedRevision`` and the condition Pinned; 0 releases. Neither is written where it is so already."""
    if fleet.spec.pinned_revision != number:
        patch = {"spec": {"pinnedRevision": number}}
        await kube.patch(PROXY_FLEETS, fleet.name, patch, fleet.namespace)
    fleet = await load_fleet(kube, fleet.name, fleet.namespace)
    instances = await list_instances(kube, fleet)
    await update_fleet_status(kube, fleet, lambda status: assess_status(fleet.spec, status, instances, clock()))
    return fleet
