"""The files of an identity as a Secret holds them and a pod mounts them, checked before they are written.

Kong reads them at start and on reload only, and a set that does not fit together is a time bomb: the reload
fails and the old set serves on, until the next restart finds it and the proxy stays down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from konverge.errors import Invalid
from konverge.pki.authority import Identity
from konverge.pki.bundle import TrustBundle, read_bundle

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
PROXY_BUNDLE_FILE = "client-ca.pem"
"""What a proxy verifies its clients with: ``KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE``."""
CONTROLLER_BUNDLE_FILE = "ca.crt"
"""What the controller verifies proxies with; the key that Secrets of type kubernetes.io/tls use."""


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """A checked identity with the bundle beside it. ``data`` is what a Secret's data holds, not encoded."""

    identity: Identity
    bundle: TrustBundle = field(repr=False)
    bundle_file: str = PROXY_BUNDLE_FILE

    @property
    def data(self) -> dict[str, bytes]:
        """File name to content. It holds the private key: hand it to nothing but a store."""
        return {
            CERTIFICATE_FILE: self.identity.chain_pem,
            KEY_FILE: self.identity.key.to_pem(),
            self.bundle_file: self.bundle.pem,
        }


def assemble_files(
    identity: Identity, bundle: TrustBundle, now: datetime, bundle_file: str = PROXY_BUNDLE_FILE
) -> IdentityFiles:
    """Return the files of an identity after reading them back as a proxy would; Invalid where they do not fit."""
    files = IdentityFiles(identity, bundle, bundle_file)
    return read_files(files.data, now, bundle_file)


def read_files(
    data: Mapping[str, bytes],
    now: datetime,
    bundle_file: str = PROXY_BUNDLE_FILE,
    what: str = "identity",
) -> IdentityFiles:
    """Read and check the files; Invalid names the one that is missing, expired or does not fit."""
    for name in (CERTIFICATE_FILE, KEY_FILE, bundle_file):
        if not data.get(name):
            raise Invalid(f"{what}: {name} is missing", reason="IncompleteIdentity", hint="reference/errors.md")
    identity = Identity.from_pem(data[CERTIFICATE_FILE], data[KEY_FILE], what)
    leaf = identity.certificate
    if now > leaf.not_after:
        raise Invalid(
            f"{what}: {CERTIFICATE_FILE} expired at {leaf.not_after:%FT%TZ}",
            reason="CertificateExpired",
            hint="reference/errors.md#certificate-expired",
        )
    return IdentityFiles(identity, read_bundle(data[bundle_file], now, f"{what}: {bundle_file}"), bundle_file)
