"""Health of targets: passive checks count what the proxy sees, active checks ask on their own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from konverge.lab.kong.proxy.balancer import Balancer, Target
from konverge.lab.kong.proxy.upstream import Origin, UpstreamPool
from konverge.lab.kong.wire.message import BadMessage, print_head

HTTP_TYPES = ("http", "https")


def _checks(balancer: Balancer, kind: str) -> dict[str, Any]:
    return dict((balancer.upstream.get("healthchecks") or {}).get(kind) or {})


def is_checked(balancer: Balancer) -> bool:
    """Tell whether anything watches the targets of an upstream."""
    active, passive = _checks(balancer, "active"), _checks(balancer, "passive")
    if (active.get("healthy") or {}).get("interval") or (active.get("unhealthy") or {}).get("interval"):
        return True
    unhealthy = passive.get("unhealthy") or {}
    return any(unhealthy.get(name) for name in ("http_failures", "tcp_failures", "timeouts"))


def note(balancer: Balancer, target: Target, outcome: str, kind: str = "passive", status: int = 0) -> None:
    """Count an outcome: "http" with a status, "tcp" (a failed connection) or "timeout"."""
    checks = _checks(balancer, kind)
    healthy, unhealthy = checks.get("healthy") or {}, checks.get("unhealthy") or {}
    if outcome == "http":
        if status in (healthy.get("http_statuses") or ()):
            _note_success(target, healthy.get("successes") or 0)
            return
        if status not in (unhealthy.get("http_statuses") or ()):
            return
        counter, limit = "http_failures", unhealthy.get("http_failures") or 0
    elif outcome == "tcp":
        counter, limit = "tcp_failures", unhealthy.get("tcp_failures") or 0
    else:
        counter, limit = "timeouts", unhealthy.get("timeouts") or 0
    if not limit:
        return
    target.successes = 0
    setattr(target, counter, getattr(target, counter) + 1)
    if getattr(target, counter) >= limit and target.healthy:
        target.healthy = False
        target.reset()


def _note_success(target: Target, limit: int) -> None:
    target.http_failures = target.tcp_failures = target.timeouts = 0
    if limit and not target.healthy:
        target.successes += 1
        if target.successes >= limit:
            target.healthy = True
            target.reset()


class ActiveChecks:
    """The tasks that probe targets; one per target that is checked actively."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._balancers: dict[str, Balancer] = {}

    def follow(self, balancers: dict[str, Balancer]) -> None:
        """Check the targets of these upstreams from now on."""
        self._balancers = balancers
        wanted = {
            (balancer.upstream["name"], target.name): target
            for balancer in balancers.values()
            for target in balancer.targets
            if self._interval(balancer, target) or self._interval(balancer, target, other=True)
        }
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
        for key, target in wanted.items():
            if key not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._watch(key[0], target))
                self._tasks[key] = task

    def _interval(self, balancer: Balancer, target: Target, *, other: bool = False) -> float:
        active = _checks(balancer, "active")
        state = "healthy" if target.healthy is not other else "unhealthy"
        return float((active.get(state) or {}).get("interval") or 0)

    async def _watch(self, upstream: str, target: Target) -> None:
        while (balancer := self._balancers.get(upstream)) is not None:
            interval = self._interval(balancer, target)
            # A state without an interval is not probed; look again whether it has changed.
            await asyncio.sleep(interval or 1.0)
            if interval and (balancer := self._balancers.get(upstream)) is not None:
                await self._probe(balancer, target)

    async def _probe(self, balancer: Balancer, target: Target) -> None:
        checks = _checks(balancer, "active")
        timeout = float(checks.get("timeout") or 1)
        tls = checks.get("type") in ("https", "grpcs")
        origin = Origin(target.host, target.port, tls, checks.get("https_sni") or "", False)
        try:
            async with asyncio.timeout(timeout):
                connection = await self._pool.connect(origin, timeout)
                try:
                    if checks.get("type") not in HTTP_TYPES:
                        _note_success(target, (checks.get("healthy") or {}).get("successes") or 0)
                        return
                    fields = [("Connection", "close"), ("Host", target.name)]
                    connection.write(print_head(f"GET {checks.get('http_path') or '/'} HTTP/1.0", fields))
                    status, _, _, _ = await connection.read_response()
                finally:
                    self._pool.discard(connection)
        except TimeoutError:
            note(balancer, target, "timeout", "active")
        except (OSError, BadMessage):
            note(balancer, target, "tcp", "active")
        else:
            note(balancer, target, "http", "active", status)

    async def stop(self) -> None:
        """End every check."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
