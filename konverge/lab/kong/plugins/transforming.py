"""request-transformer, response-transformer, correlation-id, request-termination, redirect and cors."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from uuid import uuid4

from konverge.lab.kong.plugins.base import Config, Context, Local, Plugin
from konverge.lab.kong.wire.message import HeaderItems, Headers

Pairs = list[tuple[str, str]]
DEFAULT_MESSAGES = {
    401: "Unauthorized",
    404: "Not found",
    405: "Method not allowed",
    500: "An unexpected error occurred",
    502: "Bad Gateway",
    503: "Service unavailable",
}


def split(pairs: list[str]) -> Pairs:
    """Split ``name:value`` settings."""
    return [(name, value) for name, _, value in (pair.partition(":") for pair in pairs)]


def transform_headers(config: Config, headers: Headers) -> None:
    """Apply remove, rename, replace, add and append, in this order."""
    for name in config["remove"]["headers"]:
        headers.remove(name.partition(":")[0])
    for old, new in split(config["rename"]["headers"]):
        value = headers.get(old.lower())
        if value is not None:
            headers.remove(old)
            headers.set(new, value)
    for name, value in split(config["replace"]["headers"]):
        if name.lower() in headers:
            headers.set(name, value)
    for name, value in split(config["add"]["headers"]):
        if name.lower() not in headers:
            headers.add(name, value)
    for name, value in split(config["append"]["headers"]):
        headers.add(name, value)


def transform_query(config: Config, query: str) -> str:
    """Apply the same operations to a query string; arguments come out sorted, as nginx encodes a table."""
    settings = [config[step]["querystring"] for step in ("remove", "rename", "replace", "add", "append")]
    if not any(settings):
        return query
    pairs = parse_qsl(query, keep_blank_values=True)
    gone = set(config["remove"]["querystring"])
    pairs = [pair for pair in pairs if pair[0] not in gone]
    renamed = dict(split(config["rename"]["querystring"]))
    pairs = [(renamed.get(name, name), value) for name, value in pairs]
    replaced = dict(split(config["replace"]["querystring"]))
    pairs = [(name, replaced.get(name, value)) for name, value in pairs]
    names = {name for name, _ in pairs}
    pairs += [pair for pair in split(config["add"]["querystring"]) if pair[0] not in names]
    pairs += split(config["append"]["querystring"])
    return urlencode(sorted(pairs, key=lambda pair: pair[0]), quote_via=quote)


class RequestTransformer(Plugin):
    """Changes what the upstream gets: headers, query, method and path. Bodies are left alone."""

    name = "request-transformer"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Transform."""
        transform_headers(config, context.upstream_headers)
        context.query = transform_query(config, context.query)
        if config.get("http_method"):
            context.method = config["http_method"].upper()
        uri = config["replace"].get("uri")
        if uri:
            context.upstream_path = self._expand(uri, context)
        return None

    def _expand(self, template: str, context: Context) -> str:
        """Fill in ``$(uri_captures.name)``, ``$(uri_captures[1])`` and ``$(headers.name)``."""

        def fill(found: re.Match[str]) -> str:
            expression = found[1].strip()
            capture = re.fullmatch(r"uri_captures(?:\.(\w+)|\[[\"']?(\w+)[\"']?\])", expression)
            if capture is not None:
                return context.match.captures.get(capture[1] or capture[2], "")
            header = re.fullmatch(r"headers(?:\.([\w-]+)|\[[\"']([\w-]+)[\"']\])", expression)
            if header is not None:
                return context.request.headers.get((header[1] or header[2]).lower().replace("_", "-")) or ""
            return ""

        return re.sub(r"\$\((.*?)\)", fill, template)


class ResponseTransformer(Plugin):
    """Changes the headers of responses. JSON bodies are left alone."""

    name = "response-transformer"

    def header_filter(self, context: Context, config: Config, status: int, headers: Headers) -> None:  # noqa: ARG002
        """Transform."""
        transform_headers(config, headers)


class CorrelationId(Plugin):
    """An id that goes along with a request."""

    name = "correlation-id"

    def __init__(self) -> None:
        self._worker = uuid4()
        self._count = 0

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Take the client's id or make one."""
        name = config["header_name"]
        value = context.request.headers.get(name.lower())
        if not value:
            self._count += 1
            kind = config["generator"]
            if kind == "uuid":
                value = str(uuid4())
            elif kind == "tracker":
                peer = context.request.peer
                address = f"{peer.local[0]}-{peer.local[1]}-{self._count}"
                value = f"{address}-{context.client_ip}-{context.now:.3f}"
            else:
                value = f"{self._worker}#{self._count}"
            context.upstream_headers.set(name, value)
        if config["echo_downstream"]:
            context.response_headers.append((name, value))
        return None


class RequestTermination(Plugin):
    """Answers instead of the upstream."""

    name = "request-termination"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Answer, where the trigger is there."""
        trigger = config.get("trigger")
        if trigger and trigger.lower() not in context.request.headers and f"{trigger}=" not in context.query:
            return None
        status = config["status_code"]
        if config["echo"]:
            return Local(status, json=self._echo(context))
        if config.get("body") is not None:
            kind = config.get("content_type") or "application/json; charset=utf-8"
            return Local(status, body=config["body"].encode(), content_type=kind)
        return Local(status, config.get("message") or DEFAULT_MESSAGES.get(status, "Service unavailable"))

    def _echo(self, context: Context) -> dict[str, Any]:
        request = context.request
        return {
            "request": {
                "host": request.headers.get("host") or "",
                "port": request.peer.local[1],
                "scheme": request.scheme,
                "method": request.method,
                "path": context.path,
                "query": dict(parse_qsl(context.query)),
                "headers": {name.lower(): value for name, value in request.headers},
            },
            "matched_route": context.match.route,
            "matched_service": context.match.service,
        }


class Redirect(Plugin):
    """Sends the client elsewhere."""

    name = "redirect"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Redirect."""
        location = config["location"]
        if config.get("keep_incoming_path"):
            parts = urlsplit(location)
            query = f"?{context.query}" if context.query else ""
            location = f"{parts.scheme}://{parts.netloc}{context.path}{query}"
        return Local(config["status_code"], headers=[("Location", location)], json={"message": "redirecting"})


class Cors(Plugin):
    """Cross-origin requests."""

    name = "cors"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Answer a preflight; otherwise prepare the fields of the response."""
        request = context.request
        preflight = (
            request.method == "OPTIONS"
            and "origin" in request.headers
            and "access-control-request-method" in request.headers
        )
        headers = self._origin(config, request.headers.get("origin"))
        if not preflight or config["preflight_continue"]:
            if config.get("exposed_headers"):
                headers.append(("Access-Control-Expose-Headers", ",".join(config["exposed_headers"])))
            context.response_headers += headers
            return None
        if len(headers) and any(name == "Access-Control-Allow-Origin" for name, _ in headers):
            headers += self._preflight(config, request.headers)
        return Local(200, headers=headers, body=b"")

    def _preflight(self, config: Config, given: Headers) -> HeaderItems:
        headers: HeaderItems = []
        allowed = config.get("headers")
        wanted = given.get("access-control-request-headers")
        if allowed:
            headers.append(("Access-Control-Allow-Headers", ",".join(allowed)))
        elif wanted:
            headers.append(("Access-Control-Allow-Headers", wanted))
        headers.append(("Access-Control-Allow-Methods", ",".join(config["methods"])))
        if config.get("max_age") is not None:
            headers.append(("Access-Control-Max-Age", str(int(config["max_age"]))))
        if config["private_network"] and given.get("access-control-request-private-network"):
            headers.append(("Access-Control-Allow-Private-Network", "true"))
        return headers

    def _origin(self, config: Config, origin: str | None) -> HeaderItems:
        origins = config.get("origins") or []
        star = not origins or "*" in origins
        if star and not config["credentials"]:
            return [("Access-Control-Allow-Origin", "*")]
        headers: HeaderItems = [("vary", "Origin")]
        if star:
            headers.insert(0, ("Access-Control-Allow-Origin", origin or "*"))
        elif len(origins) == 1 and re.fullmatch(r"https?://[\w.:-]+", origins[0]):
            # A single plain origin is always named, whoever asks.
            headers.append(("Access-Control-Allow-Origin", origins[0]))
        elif origin is not None and any(_fits(pattern, origin) for pattern in origins):
            headers.append(("Access-Control-Allow-Origin", origin))
        else:
            return headers
        if config["credentials"]:
            headers.append(("Access-Control-Allow-Credentials", "true"))
        return headers


def _fits(pattern: str, origin: str) -> bool:
    if pattern == origin:
        return True
    try:
        return re.fullmatch(pattern, origin) is not None
    except re.error:
        return False
