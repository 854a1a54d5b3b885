"""Tells when a kind is served: one request for any number of absent kinds, instead of one for each.

Reads the aggregated discovery document (KEP-3352, stable since Kubernetes 1.30); every authenticated client may.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Any

import orjson

from konverge.errors import KonvergeError, RetryableError
from konverge.kube.client import KubeClient
from konverge.kube.resources import Resource

log = logging.getLogger(__name__)

PERIOD = 20.0
"""Seconds between two readings while anybody waits."""
UNAGGREGATED_PERIOD = 120.0
"""Seconds after which a waiter tries for itself where the server does not aggregate its discovery."""
ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Presence:
    """Shared by the caches of one process."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._waiting: dict[Resource, list[asyncio.Future[None]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def wait_served(self, resource: Resource) -> None:
        """Return when the API server serves the kind, or when it cannot be found out."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(resource, [])
        waiters.append(done)
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_while_needed())
        try:
            await done
        finally:
            if done in waiters:
                waiters.remove(done)
            self._waiting = {kind: found for kind, found in self._waiting.items() if found}
            if not self._waiting and self._asking is not None:
                self._asking.cancel()
                self._asking = None

    async def _ask_while_needed(self) -> None:
        while self._waiting:
            await asyncio.sleep(PERIOD * random.uniform(0.9, 1.1))
            try:
                served = await self._read()
            except RetryableError as error:
                log.info("the served kinds are not known: %s", error.message)
                continue
            except KonvergeError as error:
                log.warning("the served kinds cannot be read, so each absent one is asked for: %s", error.message)
                served = None
            if served is None:
                await asyncio.sleep(UNAGGREGATED_PERIOD - PERIOD)
            self._release(served)

    def _release(self, served: set[tuple[str, str, str]] | None) -> None:
        for resource, waiters in self._waiting.items():
            if served is None or (resource.group, resource.version, resource.plural) in served:
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)

    async def _read(self) -> set[tuple[str, str, str]] | None:
        """Return (group, version, plural) of what is served; None where the server does not say it this way."""
        answer = await self._kube.request("GET", "/apis", accept=ACCEPT)
        try:
            return read_discovery(orjson.loads(answer))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # The waiters must not depend on what some proxy in between answers.
            log.warning("the served kinds cannot be read, so each absent one is asked for: %r", error)
            return None


def read_discovery(document: dict[str, Any]) -> set[tuple[str, str, str]] | None:
    """Return (group, version, plural) of all resources of an aggregated discovery document, None for another kind.

    ValueError, KeyError, TypeError or AttributeError for what is no discovery document.
    """
    if document.get("kind") != "APIGroupDiscoveryList":
        return None
    return {
        (item["metadata"]["name"], version["version"], resource["resource"])
        for item in document.get("items") or ()
        for version in item.get("versions") or ()
        for resource in version.get("resources") or ()
    }
