"""Talks to the balancer's HTTP endpoint."""

from __future__ import annotations

from typing import Any

import aiohttp

from konverge.errors import Invalid, Unavailable
from konverge.lab.supervisor.components import BALANCER_HTTP_PORT

SECONDS = 5.0


async def ask_balancer(node: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """Send one request and return the JSON answer; Unavailable where the balancer does not answer."""
    url = f"http://{node}:{BALANCER_HTTP_PORT}{path}"
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, json=body) as response,
        ):
            answer: dict[str, Any] = await response.json()
            if response.status >= 400:
                raise Invalid(f"The lab's balancer refuses {method} {path}: {answer}", hint="howto/lab.md#faults")
            return answer
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"The lab's balancer at {url} does not answer: {error or type(error).__name__}",
            hint="howto/lab.md#when-it-does-not-start",
        ) from error
