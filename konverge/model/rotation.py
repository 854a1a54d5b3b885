"""Certificate rotation: what is asked for, its steps, and what is known about the fleet's certificates."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from konverge.model.base import Value


class RotationKind(StrEnum):
    """What is rotated."""

    AUTO = "auto"
    """Only what is due: a leaf after two thirds of its lifetime, an authority likewise."""
    LEAF = "leaf"
    AUTHORITY = "authority"


class RotationStep(StrEnum):
    """The steps of a rotation, in order; a leaf rotation is REISSUE and SWITCH alone."""

    PREPARE = "prepare"
    """A successor of the authority is made and stored."""
    TRUST_BOTH = "trust-both"
    """Every proxy and the controller trust both authorities; proven with a certificate of the new one."""
    REISSUE = "reissue"
    """Every proxy shows a certificate of the issuer in force; proven by a handshake with each."""
    SWITCH = "switch"
    """The controller shows its new certificate; every proxy lets it in."""
    RETIRE = "retire"
    """Nobody trusts the old authority any more; proven by a refusal from each proxy."""


class CertificateView(Value):
    """One certificate as it is shown to people."""

    role: str
    subject: str
    issuer: str
    serial: str
    expires: datetime
    renew_at: datetime
    due: bool
