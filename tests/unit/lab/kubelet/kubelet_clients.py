"""Clients of the kubelet's HTTPS API: an aiohttp session with a client certificate, and a SPDY client."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from konverge.lab.kubelet.spdy.session import Session


def client_context(directory: Path) -> ssl.SSLContext:
    """Return a context with a client certificate of the authority in ``directory``."""
    authority = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-apiserver")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]
    )
    pem, key_pem = directory / "client.crt", directory / "client.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(pem, key_pem)
    return context


class SpdyClient:
    """A SPDY session after an HTTP upgrade; ``protocol`` is what the server chose."""

    def __init__(self, session: Session, protocol: str) -> None:
        self.session = session
        self.protocol = protocol

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, port: int, context: ssl.SSLContext, path: str, protocols: str, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[SpdyClient]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1"]
        lines += [f"X-Stream-Protocol-Version: {protocols}", "Content-Length: 0", "", ""]
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if " 101 " not in head:
            writer.close()
            raise ConnectionError(head)
        chosen = next(line for line in head.split("\r\n") if line.startswith("X-Stream-Protocol-Version"))

        async def send(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        session = Session(send, client=True)
        pump = asyncio.create_task(cls._pump(reader, session))
        try:
            yield cls(session, chosen.partition(": ")[2])
        finally:
            await session.close()
            writer.close()
            await asyncio.gather(pump, return_exceptions=True)

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, session: Session) -> None:
        while data := await reader.read(65536):
            session.feed(data)
        session.feed_eof()
