"""A stand-in Kong Gateway node: listeners, configuration, workers, lifecycle.

"Workers" are generations of connections inside one process: a reload starts a new generation, which takes every new
connection, while the old one finishes what it has begun and closes what is idle.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from konverge.lab.kong.admin.answers import Answer, not_found, ok
from konverge.lab.kong.admin.api import serve_admin, serve_status
from konverge.lab.kong.declarative.compiling import compile_document
from konverge.lab.kong.declarative.failures import ParseFailure, Refusal, print_lua
from konverge.lab.kong.declarative.parsing import parse_text
from konverge.lab.kong.describing import describe_configuration
from konverge.lab.kong.faults import Faults
from konverge.lab.kong.listen import Listen
from konverge.lab.kong.locking import LoadLock
from konverge.lab.kong.metrics import Metrics, render
from konverge.lab.kong.plugins.iterating import PluginTable
from konverge.lab.kong.prefix import Prefix
from konverge.lab.kong.proxy.gateway import Gateway
from konverge.lab.kong.proxy.health import ActiveChecks, is_checked
from konverge.lab.kong.router.table import Router
from konverge.lab.kong.schema.registry import load_registry
from konverge.lab.kong.settings import BadSetting, Settings
from konverge.lab.kong.state import EMPTY_HASH, Entities, FileStorage, MemoryStorage, Snapshot, Storage, hash_text
from konverge.lab.kong.wire.connections import Connections, ServerContext, Stats
from konverge.lab.kong.wire.exchange import Handler, Reply, Request
from konverge.lab.kong.wire.listener import Binding, Security

if TYPE_CHECKING:
    from konverge.lab.kong.database.following import Follower

log = logging.getLogger(__name__)

WORKER_MEMORY = 51_488_056
"""Bytes of an idle worker's Lua VM, as a real Kong shows them."""

RELOADABLE = (
    "admin_cert",
    "admin_key",
    "client_ca",
    "verify_client",
    "verify_depth",
    "session_tickets",
    "session_cache",
    "session_timeout",
)
"""Settings that a reload with another kong.conf changes here."""


class CannotStart(Exception):
    """The node does not come up; the text is what Kong prints."""


class StandInKong:
    """One node. ``await start()``, then it serves until ``stop``, ``quit`` or ``kill``."""

    def __init__(self, settings: Settings, *, storage: Storage | None = None, faults: Faults | None = None) -> None:
        self.settings: Settings = settings
        self.faults = faults or Faults()
        self.registry = load_registry(
            enterprise=settings.enterprise, expressions=settings.router_flavor == "expressions"
        )
        self.node_id = str(uuid4())
        self.stats = Stats()
        self.metrics = Metrics()
        self.lock = LoadLock(settings.timing.lock_ttl)
        self.snapshot = Snapshot()
        self.gateway = Gateway(self)
        self.checks = ActiveChecks(self.gateway.pool)
        self.prefix = Prefix(settings.prefix)
        self.storage = storage or self._default_storage()
        self.follower: Follower | None = None
        self.draining = False
        self.exiting = False
        self.routers_ready = settings.workers
        self.worker_memory = WORKER_MEMORY
        self.master_pid = os.getpid()
        # Beyond every pid_max: shown, but nothing that somebody could kill.
        self.worker_pids = tuple(self.master_pid * 1000 + number for number in range(1, settings.workers + 1))
        self.bindings: list[tuple[str, Listen, Binding]] = []
        self.finished = asyncio.Event()
        self._securities: dict[str, Security] = {}
        self._generations: list[ServerContext] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloads = 0

    def _default_storage(self) -> Storage:
        capacity = self.settings.lmdb_size
        if self.settings.prefix is None:
            return MemoryStorage(capacity)
        return FileStorage(self.settings.prefix, capacity)

    @property
    def shown(self) -> Snapshot:
        """Return what the Admin API reads: with a database its contents, else what the node serves."""
        return self.snapshot if self.follower is None else self.follower.snapshot

    def now(self) -> float:
        """Return the node's time."""
        return time.time() + self.faults.clock_offset

    @property
    def shown_hash(self) -> str:
        """Return the hash that /status shows."""
        if self.faults.wrong_hash and not self.snapshot.empty:
            return hash_text(self.snapshot.hash.encode())
        return self.snapshot.hash

    # ------------------------------------------------------------------ start and stop

    async def start(self) -> None:
        """Load files and configuration, bind, serve. Raises CannotStart, OSError and BrokenFiles."""
        self.prefix.prepare()
        self._securities = self.load_securities()
        if self.settings.database == "off":
            self._load_initial()
        else:
            self._open_database()
        self._follow_snapshot()
        self.gateway.switch(Router(self.snapshot), PluginTable.build(self.snapshot))
        contexts = self._new_generation()
        bound: set[tuple[str, int]] = set()
        try:
            for role, listens in self._roles():
                for listen in listens:
                    for host in self.settings.pod.resolve_hosts(listen.host):
                        if listen.port and (host, listen.port) in bound:
                            continue  # in a lab pod 127.0.0.1 and [::1] are one address
                        bound.add((host, listen.port))
                        binding = Binding(host, listen.port, contexts[role], self._security(role, listen))
                        binding.gate = self._gate(role)
                        await binding.open()
                        self.bindings.append((role, listen, binding))
        except OSError:
            self.kill()
            raise
        self._start_following()
        self.prefix.write_pid(self.master_pid)

    def _roles(self) -> Iterator[tuple[str, list[Listen]]]:
        yield "admin", self.settings.admin
        yield "status", self.settings.status
        yield "proxy", self.settings.proxy

    def _gate(self, role: str) -> Any:
        return lambda: self.faults.refuse_on == role

    def port(self, role: str, *, tls: bool = False) -> int:
        """Return the port of the first listener of a role: "admin", "status" or "proxy"."""
        return next(binding.port for kind, listen, binding in self.bindings if kind == role and listen.ssl == tls)

    def _security(self, role: str, listen: Listen) -> Security | None:
        return self._securities.get(f"{role} h2" if listen.http2 else role) if listen.ssl else None

    def load_securities(self) -> dict[str, Security]:
        """Load the files of the TLS listeners. Raises BrokenFiles."""
        wanted = {(role, listen.http2) for role, listens in self._roles() for listen in listens if listen.ssl}
        if not wanted:
            return {}
        from konverge.lab.kong.securing import load_role

        return {
            f"{role} h2" if http2 else role: load_role(self, role, http2, self._securities)
            for role, http2 in sorted(wanted)
        }

    def _new_generation(self) -> dict[str, ServerContext]:
        handlers: dict[str, Handler] = {
            "admin": self._serve_admin,
            "status": self._serve_status,
            "proxy": self.gateway.handle,
        }
        contexts = {
            role: ServerContext(handler, Connections(self.stats), cancel_lost=role == "proxy")
            for role, handler in handlers.items()
        }
        self._generations.extend(contexts.values())
        return contexts

    async def _serve_admin(self, request: Request, reply: Reply) -> None:
        await serve_admin(self, request, reply)

    async def _serve_status(self, request: Request, reply: Reply) -> None:
        await serve_status(self, request, reply)

    def is_draining(self, request: Request) -> bool:
        """Tell whether a request came in on a worker that is on its way out."""
        worker = request.peer.worker
        return worker is not None and worker.draining

    async def stop(self) -> None:
        """Fast shutdown (SIGTERM): stop listening, cut every connection, leave."""
        self.exiting = True
        self._close_listeners()
        for context in self._generations:
            context.draining = context.cancel_lost = True
            context.connections.close()
        await asyncio.sleep(0)
        await self._leave()

    async def quit(self, timeout: float | None = None) -> None:
        """Graceful shutdown (SIGQUIT): stop listening, finish what is under way, leave."""
        self.exiting = True
        self._close_listeners()
        for context in self._generations:
            context.draining = True
            context.connections.drain_down()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for context in list(self._generations):
                    await context.connections.emptied()
        await self.stop()

    async def _leave(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.checks.stop()
        self.gateway.close()
        self._close_database()
        self.prefix.remove_pid()
        self.finished.set()

    def kill(self) -> None:
        """End at once, like SIGKILL: connections are reset, nothing is written."""
        self.exiting = True
        self._close_listeners()
        for context in self._generations:
            context.cancel_lost = True
            context.connections.abort()
        for task in self._tasks:
            task.cancel()
        self.gateway.close()
        self._close_database()
        self.finished.set()

    def _close_listeners(self) -> None:
        for _, _, binding in self.bindings:
            binding.close()

    # ------------------------------------------------------------------ configuration

    def _load_initial(self) -> None:
        path = self.settings.declarative_config
        if path is None:
            stored = self.storage.load()
            if stored is not None:
                self.snapshot = stored
            return
        entities, fresh = self._read_declarative()
        self.snapshot = Snapshot(entities, fresh)
        self.storage.save(self.snapshot)

    def _read_declarative(self) -> tuple[Entities, str]:
        path = self.settings.declarative_config
        assert path is not None
        try:
            text = path.read_bytes()
            entities = compile_document(parse_text(text), self.registry, self.now())
        except OSError as error:
            raise CannotStart(f"error parsing declarative config file {path}:\n{error.strerror}") from None
        except ParseFailure as error:
            raise CannotStart(f"error parsing declarative config file {path}:\n{error}") from None
        except Refusal as refusal:
            raise CannotStart(f"error parsing declarative config file {path}:\n{print_lua(refusal.errors)}") from None
        return entities, hash_text(text) if any(entities.values()) else EMPTY_HASH

    def _open_database(self) -> None:
        from konverge.lab.kong.database.following import Follower
        from konverge.lab.kong.database.store import Database

        path = self.settings.database_file
        if path is None:
            raise CannotStart("the database has no file: set KONG_PG_DATABASE")
        self.follower = Follower(self, Database(path))
        self.snapshot = self.follower.load()

    def _start_following(self) -> None:
        if self.follower is not None:
            self._spawn(self.follower.follow_own_writes())
            self._spawn(self.follower.poll(self.settings.db_update_frequency))
            self._spawn(self.follower.rebuild(self.settings.worker_state_update_frequency))

    def _close_database(self) -> None:
        if self.follower is not None:
            self.follower.close()

    def follow(self, snapshot: Snapshot) -> None:
        """Serve what the database holds now; router and plugins follow on their timer."""
        if snapshot.number > self.snapshot.number:
            self.snapshot = snapshot
            self._follow_snapshot()

    async def commit(self, entities: Entities, fresh: str) -> None:
        """Store a configuration and serve it; routing follows a little later. Raises StoreFull."""
        snapshot = Snapshot(entities, fresh, self.snapshot.number + 1)
        size = sum(len(found) for found in entities.values())
        if size > 500:
            await asyncio.to_thread(self.storage.save, snapshot)
        else:
            self.storage.save(snapshot)
        self._take_over(snapshot)

    def _take_over(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        routes = len(snapshot.entities.get("routes", ()))
        extra = self.faults.router_extra
        if extra < 0:
            return
        delay = self.settings.timing.router_delay(routes) + extra
        if delay <= 0 and routes < 500:
            self._switch_router(snapshot, Router(snapshot), PluginTable.build(snapshot))
        else:
            self._spawn(self._rebuild(snapshot, delay))

    async def _rebuild(self, snapshot: Snapshot, delay: float) -> None:
        started = time.monotonic()
        router, plugins = await asyncio.to_thread(lambda: (Router(snapshot), PluginTable.build(snapshot)))
        await asyncio.sleep(max(0.0, delay - (time.monotonic() - started)))
        self._switch_router(snapshot, router, plugins)

    def _switch_router(self, snapshot: Snapshot, router: Router, plugins: PluginTable) -> None:
        if snapshot.number < self.gateway.router.snapshot.number:
            return
        self.gateway.switch(router, plugins)
        self._follow_snapshot()

    def _follow_snapshot(self) -> None:
        self.gateway.rebuild_balancers(self.snapshot)
        self.checks.follow(self.gateway.balancers)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ------------------------------------------------------------------ reload

    def hang_up(self) -> None:
        """Take SIGHUP: a new generation of workers with the files as they are now."""
        self._spawn(self._reload())

    async def _reload(self) -> None:
        from konverge.lab.kong.wire.broken import BrokenFiles

        try:
            self._read_overrides()
            securities = await asyncio.to_thread(self.load_securities)
        except (BrokenFiles, BadSetting) as error:
            self.prefix.log(f"[emerg] {error}")
            return
        timing = self.settings.timing
        self._reloads += 1
        try:
            started = time.monotonic()
            await asyncio.sleep(timing.reload_unready[0])
            self.routers_ready = 0
            low, high = timing.reload_accept
            # Spread by process, so that a fleet does not switch in step.
            spread = (self.master_pid % 97) / 97
            await asyncio.sleep(max(0.0, low + (high - low) * spread - (time.monotonic() - started)))
            self._switch_generation(securities)
            if self.settings.declarative_config is not None:
                await self._reload_declarative()
            await asyncio.sleep(max(0.0, timing.reload_unready[1] - (time.monotonic() - started)))
        finally:
            self._reloads -= 1
            if not self._reloads:
                self.routers_ready = self.settings.workers

    def _read_overrides(self) -> None:
        """Take over what ``kong reload -c`` has left in the prefix: paths and switches of the Admin listener."""
        given = self.prefix.read_environment()
        if not given:
            return
        fresh = Settings.from_env({**os.environ, **given}, self.settings.pod)
        for name in RELOADABLE:
            setattr(self.settings, name, getattr(fresh, name))

    def _switch_generation(self, securities: dict[str, Security]) -> None:
        old = list(self._generations)
        self._securities = securities
        contexts = self._new_generation()
        for role, listen, binding in self.bindings:
            binding.replace(contexts[role], self._security(role, listen))
        self.draining = False
        for context in old:
            context.draining = True
            context.connections.drain_down()
        self._generations = [
            context for context in self._generations if not context.draining or context.connections.open
        ]

    async def _reload_declarative(self) -> None:
        try:
            entities, fresh = await asyncio.to_thread(self._read_declarative)
        except CannotStart as error:
            self.prefix.log(f"[error] {error}")
            return
        await self.commit(entities, fresh)

    # ------------------------------------------------------------------ what the APIs show

    def configuration(self) -> dict[str, Any]:
        """Return ``configuration`` of GET /."""
        return describe_configuration(self.settings, self._roles(), list(self.registry.plugins))

    def render_metrics(self) -> str:
        """Return /metrics."""
        return render(self)

    def has_plugin(self, name: str) -> bool:
        """Tell whether a plugin is configured."""
        return any(plugin["name"] == name for plugin in self.snapshot.list("plugins"))

    def exports_health(self) -> bool:
        """Tell whether /metrics shows the health of targets."""
        return any(
            plugin["name"] == "prometheus" and plugin["enabled"] and plugin["config"].get("upstream_health_metrics")
            for plugin in self.snapshot.list("plugins")
        )

    def target_states(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield (upstream, target, address, state) of every target."""
        for name, balancer in sorted(self.gateway.balancers.items()):
            checked = is_checked(balancer)
            for target in sorted(balancer.targets, key=lambda target: target.name):
                state = "healthchecks_off" if not checked else "healthy" if target.healthy else "unhealthy"
                yield name, target.name, f"{target.host}:{target.port}", state

    def health_answer(self, key: str, query: dict[str, Any]) -> Answer:
        """Answer GET /upstreams/x/health."""
        upstream = self.snapshot.find("upstreams", key, self.registry)
        if upstream is None:
            return not_found()
        balancer = self.gateway.balancers.get(upstream["name"])
        checked = balancer is not None and is_checked(balancer)
        states = {target.name: target for target in (balancer.targets if balancer is not None else ())}
        rows = [
            _health_row(entity, states.get(entity["target"]), checked)
            for entity in reversed(self.snapshot.list("targets"))
            if (entity.get("upstream") or {}).get("id") == upstream["id"]
        ]
        if query.get("balancer_health") == "1":
            good = balancer is not None and balancer.available
            health = ("HEALTHY" if good else "UNHEALTHY") if checked else "HEALTHCHECKS_OFF"
            return ok({"node_id": self.node_id, "data": {"health": health, "id": upstream["id"]}, "next": None})
        return ok({"node_id": self.node_id, "data": rows, "next": None})


def _health_row(entity: dict[str, Any], target: Any, checked: bool) -> dict[str, Any]:
    healthy = target is None or target.healthy
    state = "HEALTHCHECKS_OFF" if not checked else "HEALTHY" if healthy else "UNHEALTHY"
    weight = entity["weight"]
    host, port = (target.host, target.port) if target is not None else (entity["target"], 8000)
    return entity | {
        "health": state,
        "data": {
            "weight": {
                "total": weight,
                "unavailable": 0 if healthy else weight,
                "available": weight if healthy else 0,
            },
            "port": port,
            "dns": "A",
            "nodeWeight": weight,
            "addresses": [{"weight": weight, "port": port, "health": state, "ip": host}],
            "host": host,
        },
    }
