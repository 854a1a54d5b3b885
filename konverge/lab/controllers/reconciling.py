"""The frame of every controller: caches, a work queue, workers, errors that lead to another attempt."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from konverge.errors import Conflict, KonvergeError, RetryableError
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object, Resource
from konverge.lab.controllers.caching import Cache
from konverge.lab.controllers.queueing import Key, WorkQueue
from konverge.lab.controllers.recording import Recorder

log = logging.getLogger(__name__)


def key_of(item: Object) -> Key:
    """Return the key of an object."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


class World:
    """The client and one cache per kind, shared by all controllers of a process."""

    def __init__(self, client: KubeClient) -> None:
        self.client = client
        self._caches: dict[Resource, Cache] = {}

    def cache(self, resource: Resource) -> Cache:
        """Return the cache of a kind; asked for before ``run`` it is kept current."""
        if resource not in self._caches:
            self._caches[resource] = Cache(self.client, resource)
        return self._caches[resource]

    async def wait_synced(self) -> None:
        """Return once every cache has been filled once."""
        for cache in self._caches.values():
            await cache.synced.wait()

    @property
    def caches(self) -> tuple[Cache, ...]:
        """Every cache that was asked for."""
        return tuple(self._caches.values())


class Controller:
    """Reconciles one kind. Subclasses set ``name``, subscribe to caches and write ``reconcile``."""

    name = "controller"
    workers = 4

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = world.client
        self.queue = WorkQueue()
        self.recorder = Recorder(world.client, self.name)

    def watch_own(self, resource: Resource) -> Cache:
        """Return the cache of the reconciled kind; each change queues the object itself."""
        cache = self.world.cache(resource)
        cache.subscribe(lambda old, new: self.queue.add(key_of(new or old or {})))
        return cache

    async def reconcile(self, namespace: str, name: str) -> None:
        """Bring one object nearer to what is wanted; called again after errors of ``KonvergeError``."""
        raise NotImplementedError

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self.reconcile(*key)
                self.queue.succeed(key)
            except Conflict:
                self.queue.retry(key)
            except KonvergeError as error:
                level = logging.INFO if isinstance(error, RetryableError) else logging.WARNING
                log.log(level, "%s %s/%s: %s", self.name, *key, error.message)
                self.queue.retry(key)
            except Exception:
                log.exception("%s %s/%s", self.name, *key)
                self.queue.retry(key)
            finally:
                self.queue.done(key)


@contextlib.asynccontextmanager
async def running(world: World, controllers: list[Controller]) -> AsyncIterator[asyncio.Task[None]]:
    """Run caches, then controllers, until the block ends; the task yielded fails when one of them does."""
    caches = [asyncio.create_task(cache.run()) for cache in world.caches]
    over = asyncio.create_task(_run_all(caches, world, controllers))
    try:
        await world.wait_synced()
        yield over
    finally:
        over.cancel()
        await asyncio.gather(over, *caches, return_exceptions=True)


async def _run_all(caches: list[asyncio.Task[None]], world: World, controllers: list[Controller]) -> None:
    async with asyncio.TaskGroup() as group:
        for cache in caches:
            group.create_task(_follow(cache))
        await world.wait_synced()
        for controller in controllers:
            group.create_task(controller.run())


async def _follow(task: asyncio.Task[None]) -> None:
    await task
