"""Turns the outcome of a push into the triple and the error that everybody else speaks; no I/O."""

from __future__ import annotations

from konverge import errors
from konverge.kong.outcomes import (
    Busy,
    Exiting,
    IdentityRefused,
    PushOutcome,
    Refused,
    Stored,
    TooLarge,
    Unchanged,
    Unexpected,
    Unknown,
    Unreachable,
    WorkerLost,
)
from konverge.model.condition import Outcome

_SHOWN = 3
"""Complaints that are spelt out in one sentence."""
_PAGE = "reference/proxy-reasons.md"


def explain(outcome: PushOutcome, proxy: str) -> Outcome:
    """Return reason, message and hint for one proxy's outcome."""
    error = find_error(outcome, proxy)
    if error is not None:
        return Outcome(**error.triple())
    reason = "Unchanged" if isinstance(outcome, Unchanged) else "Stored"
    return Outcome(reason=reason, message=f"{proxy}: {_success(outcome)}", hint="")


def find_error(outcome: PushOutcome, proxy: str) -> errors.KonvergeError | None:
    """Return the error that an outcome amounts to; None where the configuration is stored."""
    match outcome:
        case Stored() | Unchanged():
            return None
        case Refused():
            return errors.Invalid(
                f"{proxy}: {_complaints(outcome)}",
                reason="ConfigurationRefused",
                hint=f"{_PAGE}#configuration-refused",
            )
        case TooLarge():
            return errors.Invalid(
                f"{proxy}: the configuration does not fit; raise {outcome.limit.value}",
                reason="ConfigurationTooLarge",
                hint=f"{_PAGE}#configuration-too-large",
            )
        case IdentityRefused():
            return errors.Forbidden(
                f"{proxy} does not accept our identity ({outcome.cause.value}): {outcome.message}",
                reason="IdentityRefused",
                hint=f"{_PAGE}#identity-refused",
            )
        case Unexpected():
            return errors.Invalid(
                f"{proxy}: HTTP {outcome.status} is no answer of a DB-less Kong: {outcome.message}",
                reason="NotAnAdminApi",
                hint=f"{_PAGE}#not-an-admin-api",
            )
    return _find_retryable(outcome, proxy)


def _find_retryable(
    outcome: Busy | WorkerLost | Exiting | Unreachable | Unknown, proxy: str
) -> errors.RetryableError:
    match outcome:
        case Busy():
            return errors.Busy(
                f"{proxy} is loading another configuration",
                reason="ProxyBusy",
                hint=f"{_PAGE}#proxy-busy",
                delay=outcome.retry_after,
            )
        case WorkerLost():
            return errors.Busy(
                f"{proxy} lost a worker while it loaded and refuses every push for up to "
                f"{outcome.retry_after:.0f} s more: {outcome.message}",
                reason="WorkerLost",
                hint=f"{_PAGE}#worker-lost",
                delay=outcome.retry_after,
            )
        case Exiting():
            return errors.Unavailable(
                f"{proxy} is shutting down", reason="ProxyExiting", hint=f"{_PAGE}#proxy-exiting"
            )
        case Unreachable():
            return errors.Unavailable(
                f"{proxy} cannot be reached ({outcome.cause.value}): {outcome.message}",
                reason="ProxyUnreachable",
                hint=f"{_PAGE}#proxy-unreachable",
            )
    return errors.Unavailable(
        f"{proxy} may or may not hold the configuration: {outcome.message}",
        reason="PushUnknown",
        hint=f"{_PAGE}#push-unknown",
    )


def _success(outcome: PushOutcome) -> str:
    if isinstance(outcome, Unchanged):
        return f"holds {outcome.hash} already"
    return f"stored {outcome.hash}" if isinstance(outcome, Stored) else ""


def _complaints(outcome: Refused) -> str:
    lines = [
        f"{error.object or error.name or error.id} ({error.entity_type}): "
        + "; ".join(f"{e.field}: {e.message}" if e.field else e.message for e in error.errors)
        for error in outcome.errors
    ]
    lines += [f"{error.path}: {error.message}".removeprefix(": ") for error in outcome.document_errors]
    if not lines:
        return "Kong refuses the configuration without naming a cause"
    # The same plugin on several routes is refused once for each.
    lines = list(dict.fromkeys(lines))
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "Kong refuses the configuration: " + " | ".join(lines[:_SHOWN]) + more
