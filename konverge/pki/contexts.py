"""TLS contexts from bytes: what we show and what we believe, without a key on a disk.

Python's ssl reads a private key from a path only. On Linux that path leads to anonymous memory; elsewhere to a
file of mode 0600 in a directory of mode 0700 that is gone when the context is built.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from konverge.errors import Invalid
from konverge.pki.authority import Identity
from konverge.pki.bundle import TrustBundle


def build_client_context(
    bundle: TrustBundle,
    identity: Identity | None = None,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    """Return a context for connecting: it verifies chain and name, always, against the bundle alone.

    ``minimum`` may be lowered to TLS 1.2 for a server that has no 1.3; Invalid for anything older.
    """
    if minimum < ssl.TLSVersion.TLSv1_2:
        raise Invalid(f"{minimum.name} is no longer safe (RFC 8996)", reason="OldTls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = minimum
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=bundle.pem.decode("ascii"))
    if identity is not None:
        _load_identity(context, identity)
    return context


def build_server_context(
    identity: Identity, clients: TrustBundle | None = None, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
) -> ssl.SSLContext:
    """Return a context for listening; with ``clients`` it asks for a certificate and refuses all others."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum
    _load_identity(context, identity)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=clients.pem.decode("ascii"))
    return context


def _load_identity(context: ssl.SSLContext, identity: Identity) -> None:
    with _readable(identity.chain_pem + identity.key.to_pem()) as path:
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as error:
            raise Invalid(
                f"{identity.certificate.subject}: the TLS library refuses the identity: {error.reason}",
                reason="KeyMismatch",
            ) from None


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """Give ``content`` a path for the time of the block."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "identity.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)
        yield str(path)
