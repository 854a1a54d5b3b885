"""What the tests of a running stand-in share: nodes, backends, certificates, a raw client."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from konverge.lab.kong.listen import Listen
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings, Timing

HOST = "127.0.0.1"
CLIENT = x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = x509.oid.ExtendedKeyUsageOID.SERVER_AUTH
Pair = tuple[ec.EllipticCurvePrivateKey, x509.Certificate]
Answerer = Callable[[str, str, dict[str, str], bytes, asyncio.StreamWriter], Awaitable[bool]]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[StandInKong]:
    """Run a node on free ports, without Kong's delays unless ``timing`` says otherwise."""
    tls = settings.pop("tls", False)
    flags = ("http2", "ssl")
    settings.setdefault("timing", Timing.instant())
    settings.setdefault("admin", [Listen(HOST, 0)] + ([Listen(HOST, 0, flags)] if tls else []))
    settings.setdefault("proxy", [Listen(HOST, 0)] + ([Listen(HOST, 0, flags)] if tls else []))
    settings.setdefault("status", [Listen(HOST, 0)])
    node = StandInKong(Settings(**settings))
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def url(node: StandInKong, role: str, path: str, *, tls: bool = False) -> str:
    return f"{'https' if tls else 'http'}://{HOST}:{node.port(role, tls=tls)}{path}"


async def post(
    node: StandInKong, configuration: dict[str, Any] | bytes, query: str = "", **headers: str
) -> httpx.Response:
    """POST /config with text/yaml."""
    content = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    fields = {"Content-Type": "text/yaml"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(verify=False, timeout=30) as client:
        return await client.post(url(node, "admin", f"/config{query}"), content=content, headers=fields)


async def get(node: StandInKong, role: str, path: str, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(verify=False, timeout=10, follow_redirects=False) as client:
        return await client.request(options.pop("method", "GET"), url(node, role, path), **options)


def configuration(port: int, **more: Any) -> dict[str, Any]:
    """Return one service on a port with one route /r; ``more`` goes into the service."""
    service = {"name": "s", "url": f"http://{HOST}:{port}", "routes": [{"name": "r", "paths": ["/r"]}]} | more
    return {"_format_version": "3.0", "services": [service]}


async def read_request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if name}
    body = b""
    if "content-length" in fields:
        body = await reader.readexactly(int(fields["content-length"]))
    elif fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    return method, target, fields, body


class Backend:
    """An upstream that echoes requests as JSON, or does what ``answer`` says (return False to close)."""

    def __init__(self, answer: Answerer | None = None) -> None:
        self.port = 0
        self.seen: list[tuple[str, str]] = []
        self.connections = 0
        self._answer = answer or self._echo
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                method, target, fields, body = await read_request(reader)
                self.seen.append((method, target))
                if not await self._answer(method, target, fields, body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _echo(
        self, method: str, target: str, fields: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        data = json.dumps(
            {"method": method, "target": target, "headers": fields, "body": body.decode("latin-1"), "port": self.port}
        ).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data))
        return True


@dataclass
class Authority:
    """A CA that writes what it issues into a directory."""

    directory: Path
    name: str
    subject: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, directory: Path, name: str, subject: str = "") -> Authority:
        key, certificate = _sign(subject or name, None, ca=True)
        made = cls(directory, name, subject or name, key, certificate)
        made.path().write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return made

    def path(self) -> Path:
        return self.directory / f"{self.name}.crt"

    def issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier = CLIENT,
        *,
        lifetime: datetime.timedelta = datetime.timedelta(days=1),
        dns: tuple[str, ...] = (),
    ) -> tuple[Path, Path]:
        """Issue NAME.crt and NAME.key."""
        key, certificate = _sign(name, (self.key, self.certificate), usage=usage, lifetime=lifetime, dns=dns)
        crt, pem = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encoding = (
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem.write_bytes(key.private_bytes(*encoding))
        return crt, pem


def _sign(
    subject: str,
    issuer: Pair | None,
    *,
    ca: bool = False,
    usage: x509.ObjectIdentifier | None = None,
    lifetime: datetime.timedelta = datetime.timedelta(days=1),
    dns: tuple[str, ...] = (),
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(HOST)), *(x509.DNSName(d) for d in dns)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer[1].subject if issuer else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())


def client_context(
    ca: Path, pair: tuple[Path, Path] | None = None, version: ssl.TLSVersion | None = None
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if pair is not None:
        context.load_cert_chain(*pair)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


class Session:
    """A blocking TLS client that can take sessions up again; used in a thread."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.port = port
        self.context = context
        self.session: ssl.SSLSession | None = None

    def ask(self) -> tuple[int, bool]:
        """GET /status; return (status, whether the session was resumed)."""
        import socket

        with (
            socket.create_connection((HOST, self.port), timeout=5) as raw,
            self.context.wrap_socket(raw, server_hostname=HOST, session=self.session) as tls,
        ):
            tls.sendall(b"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := tls.recv(65536):
                answer += piece
            self.session = tls.session
            return int(answer.split(b" ")[1]), bool(tls.session_reused)
