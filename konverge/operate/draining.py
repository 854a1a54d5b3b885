"""Waits until proxies serve nobody any more, as their own Status API says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx

from konverge.decide.draining import ConnectionSample, is_drained, is_quiet
from konverge.errors import Unavailable
from konverge.kube.resources import Object
from konverge.model.proxy import STATUS_PORT

SAMPLE_SECONDS = 0.5
WINDOW = 4.0
"""Seconds without new connections that count as quiet; longer than kube-proxy's and most balancers' sync period."""


class Watched:
    """One proxy pod and the samples taken of it; a pod that is gone is drained."""

    def __init__(self, pod: Object) -> None:
        self.name: str = pod["metadata"]["name"]
        self._url = f"http://{pod['status']['podIP']}:{STATUS_PORT}/status"
        self._misses = 0
        self.samples: list[ConnectionSample] = []

    @property
    def gone(self) -> bool:
        """Whether nobody has answered three times in a row."""
        return self._misses >= 3

    async def sample(self, client: httpx.AsyncClient) -> None:
        """Read the counters once, over a kept connection so that reading adds nothing to them."""
        try:
            response = await client.get(self._url)
            server = response.json()["server"]
        except (httpx.HTTPError, ValueError, KeyError):
            self._misses += 1
            return
        self._misses = 0
        self.samples.append(
            ConnectionSample(
                time.monotonic(), int(server["connections_accepted"]), int(server["connections_writing"])
            )
        )


async def wait_until_quiet(pods: Sequence[Object], timeout: float) -> None:
    """Wait until no pod gets new connections; Unavailable names those that still do after ``timeout`` seconds."""
    watched = [Watched(pod) for pod in pods]
    if not await _wait(watched, lambda proxy: is_quiet(proxy.samples, WINDOW), timeout):
        busy = [w.name for w in watched if not w.gone and not is_quiet(w.samples, WINDOW)]
        raise Unavailable(
            f"Still getting new connections after {timeout:.0f} s: {', '.join(busy)}; something else than the Service"
            " leads there (another Service, a load balancer with pod targets, DNS)",
            reason="LegacyStillServes",
            hint="reference/errors.md#legacy-still-serves",
        )


async def wait_until_drained(pods: Sequence[Object], timeout: float) -> list[str]:
    """Wait until no long request is left and return the pods that still had one after ``timeout`` seconds."""
    watched = [Watched(pod) for pod in pods]
    await _wait(watched, lambda proxy: is_drained(proxy.samples, WINDOW), timeout)
    return [w.name for w in watched if not w.gone and not is_drained(w.samples, WINDOW)]


async def _wait(watched: Sequence[Watched], done: Callable[[Watched], bool], timeout: float) -> bool:
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        deadline = time.monotonic() + timeout
        while True:
            await asyncio.gather(*(proxy.sample(client) for proxy in watched))
            if all(proxy.gone or done(proxy) for proxy in watched):
                return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(SAMPLE_SECONDS)
