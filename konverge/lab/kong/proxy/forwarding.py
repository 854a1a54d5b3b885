"""What the upstream gets: the fields that nginx and Kong add, drop and rewrite."""

from __future__ import annotations

from konverge.lab.kong.admin.answers import SERVER
from konverge.lab.kong.wire.exchange import Request
from konverge.lab.kong.wire.message import Headers

HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "expect",
    }
)
REWRITTEN = frozenset(
    {
        "host",
        "content-length",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-kong-request-id",
        "via",
    }
)


def wants_upgrade(request: Request) -> bool:
    """Tell whether a request asks for another protocol (WebSocket)."""
    connection = (request.headers.get("connection") or "").lower()
    return "upgrade" in connection and "upgrade" in request.headers


def split_host(value: str | None) -> tuple[str, str]:
    """Return (host, authority) of a Host field, in lower case."""
    authority = (value or "").strip().lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]", authority
    return authority.partition(":")[0].rstrip("."), authority


def build_headers(request: Request, path: str, prefix: str | None, request_id: str) -> Headers:
    """Return the fields for the upstream, without Host and framing."""
    peer = request.peer
    listed = {name.strip().lower() for name in (request.headers.get("connection") or "").split(",")}
    drop = HOP_BY_HOP | REWRITTEN | listed
    host, _ = split_host(request.headers.get("host"))
    forwarded = request.headers.get_all("x-forwarded-for")
    via = request.headers.get_all("via")
    version = "2" if request.version == "2" else "1.1"
    items = [
        ("X-Forwarded-For", ", ".join([*forwarded, peer.remote[0]])),
        ("X-Forwarded-Proto", request.scheme),
        ("X-Forwarded-Host", host),
        ("X-Forwarded-Port", str(peer.local[1])),
        ("X-Forwarded-Path", path),
    ]
    if prefix:
        items.append(("X-Forwarded-Prefix", prefix))
    items.append(("X-Real-IP", peer.remote[0]))
    if wants_upgrade(request):
        items.append(("Connection", "upgrade"))
        items.append(("Upgrade", request.headers.get("upgrade") or ""))
    else:
        items.append(("Connection", "keep-alive"))
    items += [pair for pair in request.headers if pair[0].lower() not in drop]
    items.append(("via", ", ".join([*via, f"{version} {SERVER}"])))
    items.append(("X-Kong-Request-Id", request_id))
    return Headers(items)


def upstream_host(host: str, port: int, tls: bool) -> str:
    """Return the Host field for an origin; a default port is left out."""
    shown = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return shown if port == (443 if tls else 80) else f"{shown}:{port}"
