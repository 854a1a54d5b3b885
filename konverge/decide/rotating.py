"""Decides which step of a certificate rotation comes next, from what is stored; pure."""

from __future__ import annotations

from dataclasses import dataclass

from konverge.model.rotation import RotationKind, RotationStep


@dataclass(frozen=True, slots=True)
class StoredIdentities:
    """What the stored identities say; every name is a SHA-256 fingerprint of an authority or a leaf's issuer."""

    current: str
    successor: str | None
    controller_bundle: frozenset[str]
    proxy_bundle: frozenset[str]
    controller_issuer: str
    proxy_issuer: str
    authority_due: bool = False
    leaf_due: bool = False


LEAF_STEPS = (RotationStep.REISSUE, RotationStep.SWITCH)
AUTHORITY_STEPS = tuple(RotationStep)


def plan_rotation(kind: RotationKind, seen: StoredIdentities) -> tuple[RotationStep, ...]:
    """Return the steps to take; none where ``auto`` finds nothing due.

    A rotation of the authority that was begun is always finished, whatever is asked for: two authorities in
    force are a state to leave.
    """
    if seen.successor is not None:
        return remaining_steps(seen)
    if kind is RotationKind.AUTHORITY or (kind is RotationKind.AUTO and seen.authority_due):
        return AUTHORITY_STEPS
    if kind is RotationKind.LEAF or (kind is RotationKind.AUTO and seen.leaf_due):
        return LEAF_STEPS
    return ()


def remaining_steps(seen: StoredIdentities) -> tuple[RotationStep, ...]:
    """Return the steps of a begun rotation from the first that the stored identities do not show as done.

    What is stored may not be in force yet, so the step before is repeated: it proves its result on every
    proxy and changes nothing where that holds.
    """
    done = _count_done(seen)
    return AUTHORITY_STEPS[max(1, done - 1) :]


def _count_done(seen: StoredIdentities) -> int:
    both = frozenset(filter(None, (seen.current, seen.successor)))
    moved = seen.proxy_issuer == seen.controller_issuer == seen.successor
    facts = (
        seen.successor is not None,
        # Once all leaves are of the successor, a bundle without the old authority is a retirement under way.
        moved or (both <= seen.proxy_bundle and both <= seen.controller_bundle),
        seen.proxy_issuer == seen.successor,
        seen.controller_issuer == seen.successor,
    )
    return next((index for index, fact in enumerate(facts) if not fact), len(facts))
