"""The one error tree of Konverge.

::

    KonvergeError                    every failure: (reason, message, hint)
    ├── RetryableError               the same call may work later; ``delay`` says when
    │   ├── Unavailable              nobody answers: connection refused, reset, timed out
    │   ├── Busy                     answered "not now": 429, Retry-After, a held lock
    │   └── Conflict                 somebody else wrote first: read again, decide again
    └── FinalError                   repeating the call will not help
        ├── UsageError               the caller's words are off: flags, files, parameters
        ├── NotFound                 the named object does not exist
        ├── Forbidden                authenticated but not allowed, or not authenticated
        ├── Invalid                  an object or a configuration is refused as it is
        ├── CheckRefused             a check says no before anything was touched
        └── VerificationFailed       it was done, and reading back shows that it was not

``reason`` is CamelCase and stable: it is shown in conditions, events, log lines and JSON output alike.
``hint`` is a page under ``docs/`` with an anchor, e.g. ``reference/errors.md#api-unreachable``.
Foreign exceptions are mapped in one place per client (``kube/client.py``, ``kong/admin.py``).
"""

from __future__ import annotations

DOCS = "docs/"


class KonvergeError(Exception):
    """A failure that names its reason, says one sentence and points at a way out."""

    reason = "Failed"
    hint = "reference/errors.md"

    def __init__(self, message: str, *, reason: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.hint = hint or type(self).hint

    def triple(self) -> dict[str, str]:
        """Return the triple as it is shown everywhere: reason, message, hint."""
        return {"reason": self.reason, "message": self.message, "hint": DOCS + self.hint}


class RetryableError(KonvergeError):
    """The same call may succeed later; ``delay`` is in seconds and None where nobody knows."""

    def __init__(
        self, message: str, *, reason: str | None = None, hint: str | None = None, delay: float | None = None
    ) -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.delay = delay


class Unavailable(RetryableError):
    """Nobody answers: refused, reset or timed out. What was sent may or may not have arrived."""

    reason = "Unavailable"
    hint = "reference/errors.md#unavailable"


class Busy(RetryableError):
    """The other side answers "not now"."""

    reason = "Busy"
    hint = "reference/errors.md#busy"


class Conflict(RetryableError):
    """The object changed since it was read."""

    reason = "Conflict"
    hint = "reference/errors.md#conflict"


class FinalError(KonvergeError):
    """Repeating the call will not help."""


class UsageError(FinalError):
    """The caller's words are off."""

    reason = "Usage"
    hint = "reference/cli.md"


class NotFound(FinalError):
    """The named object does not exist."""

    reason = "NotFound"
    hint = "reference/errors.md#not-found"


class Forbidden(FinalError):
    """Not authenticated, or not allowed."""

    reason = "Forbidden"
    hint = "reference/errors.md#forbidden"


class Invalid(FinalError):
    """An object or a configuration is refused as it is."""

    reason = "Invalid"
    hint = "reference/errors.md#invalid"


class CheckRefused(FinalError):
    """A check refuses before anything was touched."""

    reason = "CheckRefused"
    hint = "reference/errors.md#check-refused"


class VerificationFailed(FinalError):
    """It was done, and reading back shows that it was not."""

    reason = "VerificationFailed"
    hint = "reference/errors.md#verification-failed"
