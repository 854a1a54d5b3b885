"""rate-limiting (local), request-size-limiting and ip-restriction."""

from __future__ import annotations

import ipaddress
import math
from datetime import UTC, datetime
from functools import lru_cache

from konverge.lab.kong.plugins.base import Config, Context, Local, Plugin
from konverge.lab.kong.wire.message import HeaderItems

PERIODS = ("second", "minute", "hour", "day", "month", "year")
UNITS = {"bytes": 1, "kilobytes": 1000, "megabytes": 1000000}


def window(period: str, now: float) -> tuple[int, int]:
    """Return (start of the fixed window, seconds until it ends)."""
    simple = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
    if period in simple:
        length = simple[period]
        start = int(now // length) * length
        return start, max(1, math.ceil(start + length - now))
    moment = datetime.fromtimestamp(now, UTC)
    if period == "month":
        begin = datetime(moment.year, moment.month, 1, tzinfo=UTC)
        after = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
    else:
        begin = datetime(moment.year, 1, 1, tzinfo=UTC)
        after = datetime(moment.year + 1, 1, 1, tzinfo=UTC)
    return int(begin.timestamp()), max(1, math.ceil(after.timestamp() - now))


class RateLimiting(Plugin):
    """Fixed windows, counted in this process; the counters survive a new configuration."""

    name = "rate-limiting"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:
        """Count, and refuse what is over a limit."""
        who = self._identify(context, config)
        limits = [(period, config[period]) for period in PERIODS if config.get(period)]
        exceeded = False
        rows: list[tuple[str, int, int, int]] = []
        for period, limit in limits:
            start, reset = window(period, context.now)
            used = context.counters.windows.get((plugin_id, who, period, start), 0)
            exceeded = exceeded or used >= limit
            rows.append((period, int(limit), max(0, int(limit) - used - 1), reset))
        headers = self._headers(rows, exceeded)
        if exceeded:
            reset = max(row[3] for row in rows if row[2] == 0)
            shown = [] if config["hide_client_headers"] else [*headers, ("Retry-After", str(reset))]
            return Local(int(config["error_code"]), config["error_message"], shown)
        for period, _ in limits:
            start, _ = window(period, context.now)
            context.counters.count((plugin_id, who, period, start), context.now)
        if not config["hide_client_headers"]:
            context.response_headers += headers
        return None

    def _headers(self, rows: list[tuple[str, int, int, int]], exceeded: bool) -> HeaderItems:
        headers: HeaderItems = []
        for period, limit, left, _ in rows:
            name = period.capitalize()
            headers.append((f"X-RateLimit-Limit-{name}", str(limit)))
            headers.append((f"X-RateLimit-Remaining-{name}", str(0 if exceeded and left == 0 else left)))
        tightest = min(rows, key=lambda row: row[2])
        headers.append(("RateLimit-Limit", str(tightest[1])))
        headers.append(("RateLimit-Remaining", str(tightest[2])))
        headers.append(("RateLimit-Reset", str(tightest[3])))
        return headers

    def _identify(self, context: Context, config: Config) -> str:
        by = config["limit_by"]
        found: str | None = None
        if by == "consumer":
            found = (context.consumer or {}).get("id") or (context.credential or {}).get("id")
        elif by == "credential":
            found = (context.credential or {}).get("id")
        elif by == "service":
            found = (context.match.service or {}).get("id")
        elif by == "header":
            found = context.request.headers.get((config.get("header_name") or "").lower())
        elif by == "path":
            found = context.path if context.path == config.get("path") else None
        return found or context.client_ip


class RequestSizeLimiting(Plugin):
    """A limit for request bodies."""

    name = "request-size-limiting"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Refuse by Content-Length; a body of unknown length is refused only where a length is required."""
        allowed = config["allowed_payload_size"] * UNITS[config["size_unit"]]
        length = context.request.body.length
        if length is not None and length > allowed:
            if (context.request.headers.get("expect") or "").lower() == "100-continue":
                return Local(417, "Request size limit exceeded")
            return Local(413, "Request size limit exceeded")
        if length is None and config["require_content_length"]:
            return Local(411, "A valid Content-Length header is required")
        return None


@lru_cache(maxsize=1024)
def _networks(texts: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


class IpRestriction(Plugin):
    """Allowed and denied networks."""

    name = "ip-restriction"

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Let pass or refuse."""
        address = ipaddress.ip_address(context.client_ip)

        def inside(texts: list[str] | None) -> bool:
            return any(address in network for network in _networks(tuple(texts or ())))

        allow, deny = config.get("allow"), config.get("deny")
        if (deny and inside(deny)) or (allow and not inside(allow)):
            message = config.get("message") or f"IP address not allowed: {context.client_ip}"
            return Local(int(config.get("status") or 403), message)
        return None
