"""Requests as bytes: heads are built once per target, bodies once per size, with their digests."""

from __future__ import annotations

import functools
import hashlib
import random
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

from konverge.errors import UsageError
from konverge.lab.load.connections import Endpoint
from konverge.lab.load.outcomes import ExchangeFailed, Kind, bad_status
from konverge.lab.load.parsing import Response
from konverge.lab.load.plan import LoadPlan, Target

CHUNKS = 3
"""Parts of a chunked body: more than one, so that the framing matters."""
VARIANTS = 4
"""Bodies per size: a proxy that mixes up two requests is found out."""
BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True)
class Body:
    """A body and its SHA-256 in hex."""

    content: bytes = field(repr=False)
    digest: str


def make_bodies(sizes: Sequence[int], seed: int) -> list[Body]:
    """Return bodies of the given sizes in turn; the same seed gives the same bodies."""
    source = random.Random(seed)
    contents = [source.randbytes(size) for _ in range(VARIANTS) for size in sizes]
    return [Body(content, hashlib.sha256(content).hexdigest()) for content in contents]


def find_endpoint(plan: LoadPlan, target: Target) -> Endpoint:
    """Return where the target's requests connect to; over TLS the target's host is the server name."""
    parts = urlsplit(plan.base_url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        return Endpoint(host, parts.port or 80)
    name = target.host.partition(":")[0] or host
    return Endpoint(host, parts.port or 443, make_context(plan.ca_file, plan.verify_tls), name)


@functools.cache
def make_context(ca_file: str, verify: bool) -> ssl.SSLContext:
    """Return the client's TLS context: HTTP/1.1 only, verifying only where asked to; UsageError for a bad file."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"ca_file {ca_file} is not usable: {error}", hint="reference/load.md#plan") from error
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def host_header(plan: LoadPlan, target: Target) -> str:
    """Return the value of the Host header."""
    return target.host or urlsplit(plan.base_url).netloc


def all_headers(plan: LoadPlan, target: Target) -> dict[str, str]:
    """Return the target's headers, secrets included."""
    headers = {"Host": host_header(plan, target), "User-Agent": "konverge-load", "Accept": "*/*"}
    headers |= target.headers
    return headers | {name: secret.get_secret_value() for name, secret in target.credentials.items()}


def build_head(plan: LoadPlan, target: Target, *, close: bool = False) -> bytes:
    """Return request line and headers without the empty line that ends them."""
    headers = all_headers(plan, target)
    if close:
        headers["Connection"] = "close"
    lines = [f"{target.method} {target.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def frame_plain(head: bytes, method: str) -> list[bytes]:
    """Return a request without a body."""
    return [head + (b"Content-Length: 0\r\n\r\n" if method in BODY_METHODS else b"\r\n")]


def frame_sized(head: bytes, body: Body) -> list[bytes]:
    """Return a request whose body has a Content-Length."""
    return [head + b"Content-Length: %d\r\n\r\n" % len(body.content), body.content]


def frame_chunked(head: bytes, body: Body) -> list[bytes]:
    """Return a request whose body is sent in chunks."""
    size = max(1, -(-len(body.content) // CHUNKS))
    chunks = (body.content[start : start + size] for start in range(0, len(body.content), size))
    framed = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return [head + b"Transfer-Encoding: chunked\r\n\r\n", *framed, b"0\r\n\r\n"]


def check_response(target: Target, response: Response, body: Body | None = None) -> None:
    """Raise ExchangeFailed where status or body are not what the target expects.

    ``body`` is the one that was sent to an echo: its digest must come back.
    """
    if response.status not in target.expect:
        start = bytes(response.body[:120]).decode("utf-8", "replace")
        raise _wrong(bad_status(response.status), f"Status {response.status} instead of {target.expect}: {start}")
    if target.contains and target.contains.encode() not in response.body:
        raise _wrong(Kind.WRONG_BODY, f"The body of {len(response.body)} bytes lacks {target.contains!r}")
    if body is not None and response.status < 300:
        _check_echo(response, body)


def _check_echo(response: Response, body: Body) -> None:
    try:
        document = orjson.loads(response.body)
        seen = document["body_sha256"], document["body_length"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise _wrong(Kind.WRONG_BODY, "The answer is no echo with body_sha256 and body_length") from error
    if seen != (body.digest, len(body.content)):
        raise _wrong(
            Kind.WRONG_BODY, f"The echo saw {seen[1]} bytes of another digest, {len(body.content)} were sent"
        )


def _wrong(kind: str, message: str) -> ExchangeFailed:
    return ExchangeFailed(kind, message, answered=True)


def spread(weights: Sequence[float]) -> Iterator[int]:
    """Yield positions for ever, each as often as its weight says and as evenly spread as possible."""
    total = sum(weights)
    credit = [0.0] * len(weights)
    while True:
        for place, weight in enumerate(weights):
            credit[place] += weight
        chosen = max(range(len(weights)), key=credit.__getitem__)
        credit[chosen] -= total
        yield chosen
