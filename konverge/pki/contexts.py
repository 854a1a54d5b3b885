"""TLS contexts from bytes: what we show and what we believe, without a key on a disk.

Python's ssl reads a private key from a path only. That path leads to anonymous memory on Linux and into a pipe
elsewhere: nothing is left behind by a process that is killed in between.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

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
    identity: Identity, clients: TrustBundle | None = None, minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
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
    with _readable(identity.chain_pem) as certificates, _readable(identity.key.to_pem()) as key:
        try:
            context.load_cert_chain(certificates, key)
        except ssl.SSLError as error:
            raise Invalid(
                f"{identity.certificate.subject}: the TLS library refuses the identity: {error.reason}",
                reason="KeyMismatch",
                hint="reference/errors.md#key-mismatch",
            ) from None


@contextmanager
def _readable(content: bytes) -> Iterator[str]:
    """Give ``content`` a path for the time of the block, in memory that goes with the process."""
    anonymous = hasattr(os, "memfd_create")
    descriptor = _open_memory(content) if anonymous else _open_pipe(content)
    try:
        yield f"/proc/self/fd/{descriptor}" if anonymous else f"/dev/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _open_memory(content: bytes) -> int:
    descriptor = os.memfd_create("identity", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


def _open_pipe(content: bytes) -> int:
    """Fill a pipe, which is read once; Invalid where it does not hold ``content``."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        written = os.write(writing, content)
    except BlockingIOError:
        written = 0
    finally:
        os.close(writing)
    if written < len(content):
        os.close(reading)
        raise Invalid(
            f"A certificate chain of {len(content)} bytes is longer than a pipe of this system holds",
            reason="ChainTooLong",
            hint="reference/errors.md#bad-certificate",
        )
    return reading
