"""Decides which step of a certificate rotation comes next, and what forbids it; pure.

Two observations decide: what is stored, and what each proxy shows. Invariant of every step that is allowed: each
proxy trusts the certificate that the controller shows, and the controller trusts the certificate that each proxy
shows. A proxy that is out of reach keeps, for all we know, what it had; so it holds up what would make it a stranger,
and nothing else. In an emergency the danger of waiting is greater: then it is left behind, taken out of traffic, and
healed when it is back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from konverge.errors import UsageError
from konverge.model.rotation import ProxyIdentity, RotationKind, RotationStep


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
    authority_fresh: bool = False
    """The authority in force is younger than the request: it was rotated by an earlier attempt of the same run."""
    proxy_serial: str = ""

    @property
    def authorities(self) -> frozenset[str]:
        """The authorities in force."""
        return frozenset(filter(None, (self.current, self.successor)))


LEAF_STEPS = (RotationStep.REISSUE, RotationStep.SWITCH)
AUTHORITY_STEPS = (
    RotationStep.PREPARE,
    RotationStep.TRUST_BOTH,
    RotationStep.REISSUE,
    RotationStep.SWITCH,
    RotationStep.RETIRE,
)
SHORT_STEPS = (RotationStep.PREPARE, RotationStep.REPLACE, RotationStep.SWITCH, RotationStep.RETIRE)
"""Of an emergency, and where a reload is a rolling restart: one time less for every proxy."""


def plan_rotation(
    kind: RotationKind,
    seen: StoredIdentities,
    proxies: Iterable[ProxyIdentity] = (),
    *,
    revoked: str = "",
    short: bool = False,
) -> tuple[RotationStep, ...]:
    """Return the steps to take; none where ``auto`` finds nothing due.

    A rotation of the authority that was begun is always finished, whatever is asked for: two authorities in
    force are a state to leave. ``revoked`` is the fingerprint of the authority that an emergency is about: where
    that is the successor of a begun rotation, a second rotation follows the first; where nobody trusts it any
    more, nothing is left to do.
    """
    if kind is RotationKind.EMERGENCY:
        return _plan_emergency(seen, revoked)
    steps = SHORT_STEPS if short else AUTHORITY_STEPS
    if seen.successor is not None:
        return remaining_steps(seen, steps)
    if (kind is RotationKind.AUTHORITY and not seen.authority_fresh) or (
        kind is RotationKind.AUTO and seen.authority_due
    ):
        return steps
    if kind is RotationKind.LEAF or (kind is RotationKind.AUTO and seen.leaf_due):
        return LEAF_STEPS
    # What a proxy missed while it was out of reach is made up for.
    return (RotationStep.REISSUE,) if any(owes_files(proxy, seen) for proxy in proxies) else ()


def _plan_emergency(seen: StoredIdentities, revoked: str) -> tuple[RotationStep, ...]:
    if seen.successor is None:
        return SHORT_STEPS if revoked in ("", seen.current) else ()
    begun = remaining_steps(seen, SHORT_STEPS)
    return begun + SHORT_STEPS if revoked == seen.successor else begun


def owes_files(proxy: ProxyIdentity, seen: StoredIdentities) -> bool:
    """Tell whether a proxy that answers runs with other files than those that are stored for it."""
    if not proxy.reachable:
        return False
    if proxy.excess:
        return True
    return proxy.serial != seen.proxy_serial or frozenset(proxy.trusts) != seen.proxy_bundle & seen.authorities


def remaining_steps(
    seen: StoredIdentities, steps: tuple[RotationStep, ...] = AUTHORITY_STEPS
) -> tuple[RotationStep, ...]:
    """Return the steps of a begun rotation from the first that the stored identities do not show as done.

    What is stored may not be in force yet, so the step before is repeated: it proves its result on every
    proxy and changes nothing where that holds.
    """
    done = [step for step in steps if _shows_as_done(step, seen)]
    first = next((index for index, step in enumerate(steps) if step not in done), len(steps))
    return steps[max(1, first - 1) :]


def _shows_as_done(step: RotationStep, seen: StoredIdentities) -> bool:
    # Once all leaves are of the successor, a bundle without the old authority is a retirement under way.
    moved = seen.proxy_issuer == seen.controller_issuer == seen.successor
    trusted = moved or (seen.authorities <= seen.proxy_bundle and seen.authorities <= seen.controller_bundle)
    match step:
        case RotationStep.PREPARE:
            return seen.successor is not None
        case RotationStep.TRUST_BOTH:
            return trusted
        case RotationStep.REISSUE:
            return seen.proxy_issuer == seen.successor
        case RotationStep.REPLACE:
            return trusted and seen.proxy_issuer == seen.successor
        case RotationStep.SWITCH:
            return seen.controller_issuer == seen.successor
        case RotationStep.RETIRE:
            return False


@dataclass(frozen=True, slots=True)
class Blocker:
    """Why a step may not begin: who is in the way, and what was seen. ``absent``: it is out of reach."""

    name: str
    why: str
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


def count_at_once(share: int | str, proxies: int, serving: int) -> int:
    """Return how many proxies are reloaded side by side: a number, or a percentage of all, rounded down.

    At least 1, and never more than half of those that carry traffic: a reload takes a proxy's readiness for a moment.
    """
    wanted = share if isinstance(share, int) else proxies * int(share.removesuffix("%")) // 100
    return max(1, min(wanted, serving // 2))


CONTROLLER = "the controller"


def find_blockers(
    step: RotationStep, seen: StoredIdentities, proxies: Sequence[ProxyIdentity], *, emergency: bool = False
) -> tuple[Blocker, ...]:
    """Return what stands between the observed state and a step; empty where it may begin.

    Outside a rotation of the authority no order is needed: every leaf is of the one authority that all trust.
    """
    if seen.successor is None or step in (RotationStep.PREPARE, RotationStep.TRUST_BOTH, RotationStep.REPLACE):
        return ()
    found = list(_controller_blockers(step, seen))
    if step is RotationStep.REISSUE and seen.proxy_issuer == seen.successor:
        # Reissued already: what is left is to bring trust and leaf into force where somebody missed them.
        return tuple(found)
    present = [proxy for proxy in proxies if proxy.reachable]
    faults = {proxy.proxy: why for proxy in present if (why := _find_fault(step, proxy, seen.successor))}
    if emergency and len(faults) < len(present):
        # Somebody follows: the others are stragglers. That nobody does is another matter.
        return tuple(found)
    found += [Blocker(name, why) for name, why in faults.items()]
    if not emergency and step in (RotationStep.SWITCH, RotationStep.RETIRE):
        found += [Blocker(p.proxy, p.seen or "out of reach", absent=True) for p in proxies if not p.reachable]
    return tuple(found)


def _controller_blockers(step: RotationStep, seen: StoredIdentities) -> Iterable[Blocker]:
    if step is RotationStep.REISSUE and seen.successor not in seen.controller_bundle:
        yield Blocker(CONTROLLER, "it does not trust the new authority")
    if step is RotationStep.RETIRE and seen.controller_issuer != seen.successor:
        yield Blocker(CONTROLLER, "it holds a certificate of the old authority")


def _find_fault(step: RotationStep, proxy: ProxyIdentity, successor: str) -> str:
    if successor not in proxy.trusts:
        return "it does not trust the new authority"
    if step is not RotationStep.REISSUE and proxy.authority != successor:
        return "it shows a certificate of the old authority"
    return ""


def find_revoked(word: str, known: Iterable[tuple[str, str, str]], current: str) -> str:
    """Return the fingerprint of the authority whose access has to end for a certificate to lose its own.

    ``word`` is "authority", a serial or a fingerprint, in any case, with or without colons; ``known`` are
    (serial, fingerprint, fingerprint of its authority). UsageError where no certificate of the fleet has it.
    """
    wanted = word.replace(":", "").replace(" ", "").lower().lstrip("0")
    if wanted == "authority":
        return current
    for serial, fingerprint, authority in known:
        if wanted and wanted in (serial.lower().lstrip("0"), fingerprint.lower().lstrip("0")):
            return authority
    raise UsageError(
        f"No certificate of the fleet has the serial or fingerprint {word!r}; `konverge certs status` lists them."
        " For an older one revoke the authority that issued it: --revoke authority",
        reason="UnknownCertificate",
        hint="reference/errors.md#unknown-certificate",
    )
