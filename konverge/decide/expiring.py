"""When a certificate that nobody renewed becomes a matter of concern, and how that is shown; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from konverge.model.rotation import CertificateView

WARNINGS = (1 / 10, 1 / 3)
"""Parts of the lifetime that are left when a warning is due. A renewal is tried from a third on, every night: the
first warning says that none has succeeded yet, the second that hardly any time is left."""
EXPIRY_METRIC = "konverge_certificate_expiry_seconds"
ROLES = {"next authority": "next_authority"}


def find_warning(starts: datetime, expires: datetime, now: datetime) -> float:
    """Return the warning that a certificate has passed: a part of its lifetime, 0.0 where none is due."""
    left, lifetime = expires - now, expires - starts
    if lifetime <= timedelta(0):
        return WARNINGS[0]
    return next((part for part in WARNINGS if left <= lifetime * part), 0.0)


@dataclass(frozen=True, slots=True)
class Concern:
    """A certificate that a warning is due for, one sentence about it, and how grave it is."""

    view: CertificateView
    message: str
    kind: Literal["Normal", "Warning"]


def list_warnings(views: Iterable[CertificateView], now: datetime) -> list[Concern]:
    """Return the certificates that a warning is due for; a third left is news, a tenth left is a warning."""
    found = []
    for view in views:
        part = find_warning(view.starts, view.expires, now) if view.starts else 0.0
        if part:
            kind: Literal["Normal", "Warning"] = "Warning" if part == WARNINGS[0] else "Normal"
            found.append(Concern(view, _describe(view, part, now), kind))
    return found


def _describe(view: CertificateView, part: float, now: datetime) -> str:
    whose = f"proxy {view.pod}" if view.pod else view.role
    if now >= view.expires:
        return f"The certificate of {whose} (serial {view.serial}) expired at {view.expires:%FT%TZ}"
    share = "a tenth" if part == WARNINGS[0] else "a third"
    return (
        f"The certificate of {whose} (serial {view.serial}) expires at {view.expires:%FT%TZ};"
        f" less than {share} of its lifetime is left and no rotation has replaced it"
    )


def certificate_metrics(fleet: str, views: Iterable[CertificateView], now: datetime) -> list[str]:
    """Return the lines of ``konverge_certificate_expiry_seconds`` in Prometheus' text format.

    The value is the number of seconds until the certificate expires, negative after that.
    """
    lines = [
        f"# HELP {EXPIRY_METRIC} Seconds until a certificate of the fleet expires.",
        f"# TYPE {EXPIRY_METRIC} gauge",
    ]
    for view in views:
        labels = f'fleet="{_escape(fleet)}",role="{ROLES.get(view.role, view.role)}",pod="{_escape(view.pod)}"'
        lines.append(f"{EXPIRY_METRIC}{{{labels}}} {(view.expires - now).total_seconds():.0f}")
    return lines


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
