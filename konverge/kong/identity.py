"""Says why a proxy does not accept our client certificate; no I/O.

nginx answers an expired, a not yet valid, a wrongly used and an unknown certificate with one and the same
page, so the cause is found in our own certificate. What is fine there is unknown to the proxy.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from konverge.kong.outcomes import IdentityCause, IdentityRefused


class CertificateFacts(Protocol):
    """What is asked of our certificate; :class:`konverge.pki.inspecting.Certificate` answers it."""

    @property
    def not_before(self) -> datetime:
        """Start of validity, aware."""

    @property
    def not_after(self) -> datetime:
        """End of validity, aware."""

    @property
    def issuer(self) -> str:
        """Distinguished name of the authority, RFC 4514."""

    @property
    def purposes(self) -> Collection[str]:
        """Extended key usages such as ``clientAuth``; empty means any."""


def diagnose_identity(
    refused: IdentityRefused, certificate: CertificateFacts | None, now: datetime
) -> IdentityRefused:
    """Return the refusal with its cause found out as far as our side can."""
    if refused.cause is not IdentityCause.UNDIAGNOSED or certificate is None:
        return refused
    if expired := find_expiry(certificate, now):
        return expired
    if now < certificate.not_before:
        return _refuse(
            IdentityCause.NOT_YET_VALID,
            f"our client certificate is valid from {certificate.not_before:%FT%TZ} on",
        )
    if certificate.purposes and not {"clientAuth", "anyExtendedKeyUsage"} & set(certificate.purposes):
        return _refuse(IdentityCause.WRONG_USAGE, "our certificate is not for client authentication")
    return _refuse(
        IdentityCause.UNKNOWN_AUTHORITY,
        f"the proxy does not trust the issuer of our client certificate, {certificate.issuer}",
    )


def find_expiry(certificate: CertificateFacts | None, now: datetime) -> IdentityRefused | None:
    """Return the refusal that our certificate deserves once it has expired; None while it has not.

    A proxy looks at a handshake only, and a kept connection may outlive the certificate that it was made with.
    """
    if certificate is None or now <= certificate.not_after:
        return None
    return _refuse(IdentityCause.EXPIRED, f"our client certificate expired at {certificate.not_after:%FT%TZ}")


def _refuse(cause: IdentityCause, message: str) -> IdentityRefused:
    return IdentityRefused(cause, message)
