"""Measures how long a server takes to answer and how its clock stands against ours."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

import orjson

from konverge.checks.scene import ApiServer
from konverge.kube.client import KubeClient
from konverge.operate.clock import Clock


async def measure_server(kube: KubeClient, clock: Clock) -> ApiServer:
    """Ask the API server for its version twice; the second answer is timed, without the handshake."""
    await kube.ask("GET", "/version")
    started = time.monotonic()
    content, headers = await kube.ask("GET", "/version")
    seconds = time.monotonic() - started
    version = orjson.loads(content).get("gitVersion", "")
    return ApiServer(str(version), seconds, read_skew(headers, clock()))


def read_skew(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the server's clock minus ours in seconds, from its Date header (RFC 9110, 6.6.1); None without one."""
    value = next((v for name, v in headers.items() if name.lower() == "date"), "")
    try:
        told = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    skew = (told - now).total_seconds()
    # The header is cut to whole seconds: what is within one second of it is no difference.
    return 0.0 if -1.0 <= skew <= 0.0 else skew
