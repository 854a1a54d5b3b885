"""What a gateway says about itself, as values; no I/O.

Kong writes an empty Lua table as ``{}`` where a list is meant: both forms are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from konverge.errors import Unavailable
from konverge.model.proxy import ZERO_HASH


@dataclass(frozen=True, slots=True)
class GatewayStatus:
    """``GET /status``: the hash of the stored configuration, and connections as nginx counts them.

    The hash changes when a configuration is stored, before the workers route by it.
    """

    hash: str
    connections_active: int = 0
    connections_accepted: int = 0
    total_requests: int = 0
    worker_pids: frozenset[int] = frozenset()
    """All are new after a reload or a restart; some are where workers died."""
    database: bool = False

    @property
    def workers(self) -> int:
        """The number of workers."""
        return len(self.worker_pids)

    @property
    def empty(self) -> bool:
        """Whether there is no configuration at all."""
        return self.hash in ("", ZERO_HASH)


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of the gateway."""

    ip: str
    port: int
    tls: bool = False
    http2: bool = False


@dataclass(frozen=True, slots=True)
class GatewayInfo:
    """``GET /``: what the gateway is; ``node_id`` is new with every start."""

    version: str
    node_id: str
    hostname: str
    database: str
    router_flavor: str
    workers: int
    proxy_listeners: tuple[Listener, ...] = ()
    stream_listeners: tuple[Listener, ...] = ()
    admin_listeners: tuple[Listener, ...] = ()
    status_listeners: tuple[Listener, ...] = ()
    plugins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Readiness:
    """``GET /status/ready``: readiness as the kubelet sees it, and Kong's reason where it is not ready."""

    ready: bool
    message: str = ""

    @property
    def draining(self) -> bool:
        """Whether somebody asked for draining; only a restart or a reload ends it."""
        return not self.ready and "draining" in self.message


def parse_object(body: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in a body; Unavailable where it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{what}: the answer is not a JSON object", reason="MalformedAnswer")
    return document


def parse_status(body: bytes, what: str) -> GatewayStatus:
    """Return the status in the body of ``GET /status``."""
    document = parse_object(body, what)
    server = _mapping(document.get("server"))
    memory = _mapping(document.get("memory"))
    return GatewayStatus(
        hash=str(document.get("configuration_hash") or ""),
        connections_active=_number(server.get("connections_active")),
        connections_accepted=_number(server.get("connections_accepted")),
        total_requests=_number(server.get("total_requests")),
        worker_pids=_pids(memory.get("workers_lua_vms")),
        database="database" in document,
    )


def parse_info(body: bytes, what: str) -> GatewayInfo:
    """Return what ``GET /`` says."""
    document = parse_object(body, what)
    configuration = _mapping(document.get("configuration"))
    plugins = _mapping(_mapping(document.get("plugins")).get("available_on_server"))
    workers = _mapping(document.get("pids")).get("workers")
    return GatewayInfo(
        version=str(document.get("version", "")),
        node_id=str(document.get("node_id", "")),
        hostname=str(document.get("hostname", "")),
        database=str(configuration.get("database", "")),
        router_flavor=str(configuration.get("router_flavor", "")),
        workers=len(workers) if isinstance(workers, list) else 0,
        proxy_listeners=_listeners(configuration.get("proxy_listeners")),
        stream_listeners=_listeners(configuration.get("stream_listeners")),
        admin_listeners=_listeners(configuration.get("admin_listeners")),
        status_listeners=_listeners(configuration.get("status_listeners")),
        plugins=tuple(sorted(plugins)),
    )


def parse_readiness(status: int, body: bytes, what: str) -> Readiness:
    """Return what ``GET /status/ready`` says: 200 is ready, everything else is not."""
    message = str(parse_object(body, what).get("message", ""))
    return Readiness(status == 200, message)


def _listeners(value: Any) -> tuple[Listener, ...]:
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    return tuple(
        Listener(
            str(entry.get("ip", "")),
            _number(entry.get("port")),
            bool(entry.get("ssl")),
            bool(entry.get("http2")),
        )
        for entry in entries
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _pids(value: Any) -> frozenset[int]:
    entries = value if isinstance(value, list) else []
    return frozenset(_number(entry.get("pid")) for entry in entries if isinstance(entry, dict))


def _number(value: Any) -> int:
    return int(value) if isinstance(value, (int, float)) else 0
