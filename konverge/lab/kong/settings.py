"""Settings of one stand-in: from KONG_* variables, from flags, or built in code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from konverge.lab.kong.database.locating import locate_database
from konverge.lab.kong.listen import Listen, parse_listen
from konverge.lab.pod import PodEnvironment

DEFAULT_ADMIN = "127.0.0.1:8001 reuseport backlog=16384, 127.0.0.1:8444 http2 ssl reuseport backlog=16384"
DEFAULT_PROXY = "0.0.0.0:8000 reuseport backlog=16384, 0.0.0.0:8443 http2 ssl reuseport backlog=16384"
DEFAULT_STATUS = "127.0.0.1:8007 reuseport backlog=16384"
DEFAULT_PREFIX = "/usr/local/kong/"
TEN_MIB = 10 * 1024 * 1024
SIZE = re.compile(r"^(\d+)([kmgKMG]?)$")
DURATION = re.compile(r"^(\d+)(ms|s|m|h|d)?$")
UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400}
DEFAULT_PROTOCOLS = "TLSv1.2 TLSv1.3"
FLAVORS = ("traditional", "traditional_compatible", "expressions")


class BadSetting(ValueError):
    """A setting is off; the text names it."""


def parse_size(text: str) -> int:
    """Return the bytes of nginx's size notation."""
    found = SIZE.match(text.strip())
    if found is None:
        raise BadSetting(f"invalid size {text!r}")
    return int(found[1]) * UNITS[found[2].lower()]


def parse_duration(text: str) -> float:
    """Return the seconds of nginx's time notation."""
    found = DURATION.match(text.strip())
    if found is None:
        raise BadSetting(f"invalid time {text!r}")
    return int(found[1]) * SECONDS[found[2] or ""]


@dataclass(slots=True)
class Timing:
    """How long things take; defaults were measured on a real Kong 3.9.3 with two workers on two cores."""

    load_base: float = 0.006
    load_per_route: float = 0.00035
    """Seconds of POST /config per route (1,000: 0.36 s, 10,000: 2.8 s as a whole)."""
    lock_from: int = 1000
    lock_per_route: float = 0.00006
    """Seconds per route above ``lock_from`` for which the lock is held at the end of a load (5,000: 0.24 s)."""
    router_base: float = 0.003
    router_per_route: float = 0.0000567
    """Seconds from the 201 until the last worker routes with it (1,000: 0.06 s), up to ``router_max``."""
    router_max: float = 0.68
    router_steep_from: int = 1000
    router_steep: float = 0.0001275
    """Seconds per route above ``router_steep_from`` (5,000: 0.57 s)."""
    reload_accept: tuple[float, float] = (0.69, 0.77)
    """Seconds from HUP until the old workers stop accepting."""
    reload_unready: tuple[float, float] = (0.1, 0.75)
    """Seconds after HUP between which /status/ready is 503."""
    lock_ttl: float = 60.0

    @classmethod
    def instant(cls) -> Timing:
        """Return timing without any delay, for tests that are about something else."""
        return cls(
            load_base=0,
            load_per_route=0,
            lock_per_route=0,
            router_base=0,
            router_per_route=0,
            reload_accept=(0.0, 0.0),
            reload_unready=(0.0, 0.0),
        )

    def load_time(self, routes: int) -> float:
        """Return the seconds that a load takes."""
        return self.load_base + routes * self.load_per_route if self.load_per_route else 0.0

    def lock_time(self, routes: int) -> float:
        """Return the part of a load during which nobody else can load."""
        return max(0, routes - self.lock_from) * self.lock_per_route

    def router_delay(self, routes: int) -> float:
        """Return the seconds between 201 and routing."""
        steep = max(0, routes - self.router_steep_from) * self.router_steep
        gentle = min(routes, self.router_steep_from) * self.router_per_route
        return min(self.router_base + gentle + steep, self.router_max) if self.router_per_route else 0.0


@dataclass(slots=True)
class Settings:
    """Everything one stand-in is told. Paths are host paths already."""

    admin: list[Listen] = field(default_factory=list)
    proxy: list[Listen] = field(default_factory=list)
    status: list[Listen] = field(default_factory=list)
    prefix: Path | None = None
    shown_prefix: str = DEFAULT_PREFIX
    declarative_config: Path | None = None
    admin_cert: Path | None = None
    admin_key: Path | None = None
    proxy_cert: Path | None = None
    proxy_key: Path | None = None
    client_ca: Path | None = None
    verify_client: str = "off"
    verify_depth: int = 1
    admin_protocols: str = DEFAULT_PROTOCOLS
    """nginx_admin_ssl_protocols."""
    session_tickets: bool = True
    session_cache: bool = True
    session_timeout: float = 86400.0
    client_max_body: int = TEN_MIB
    body_buffer: int = TEN_MIB
    lmdb_size: int = 2 * 1024**3
    workers: int = 2
    router_flavor: str = "traditional_compatible"
    enterprise: bool = False
    kic: bool = False
    timing: Timing = field(default_factory=Timing)
    pod: PodEnvironment = field(default_factory=PodEnvironment)
    database: str = "off"
    """"off" or "postgres"."""
    database_file: Path | None = None
    """What plays the database: one SQLite file for all nodes."""
    db_update_frequency: float = 5
    """Seconds between two looks for what other nodes wrote (``kong_defaults.lua``)."""
    worker_state_update_frequency: float = 5
    """Seconds between two looks whether router and plugins are to be rebuilt (``kong_defaults.lua``)."""
    shown: Mapping[str, object] = field(default_factory=dict)
    """What GET / shows in ``configuration`` besides, by Kong's names."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str], pod: PodEnvironment) -> Settings:
        """Read KONG_* variables. Raises BadSetting and BadListen."""
        return _read(environ, pod)


def _path(environ: Mapping[str, str], name: str, pod: PodEnvironment) -> Path | None:
    value = environ.get(name, "")
    if not value or value == "[]":
        return None
    # Several certificates may be given (RSA, ECDSA); the first counts.
    return pod.resolve_path(value.split(",")[0].strip())


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    value = environ.get(name, "").lower()
    return value not in ("off", "none", "false", "0") if value else default


def _read(environ: Mapping[str, str], pod: PodEnvironment) -> Settings:
    database = environ.get("KONG_DATABASE", "off")
    if database not in ("off", "postgres"):
        raise BadSetting(f"KONG_DATABASE {database!r}: neither postgres nor off")
    flavor = environ.get("KONG_ROUTER_FLAVOR", "traditional_compatible")
    if flavor not in FLAVORS:
        raise BadSetting(f"router_flavor has an invalid value: '{flavor}' ({', '.join(FLAVORS)})")
    shown_prefix = environ.get("KONG_PREFIX", DEFAULT_PREFIX)
    workers = environ.get("KONG_NGINX_WORKER_PROCESSES", "2")
    return Settings(
        admin=parse_listen(environ.get("KONG_ADMIN_LISTEN", DEFAULT_ADMIN)),
        proxy=parse_listen(environ.get("KONG_PROXY_LISTEN", DEFAULT_PROXY)),
        status=parse_listen(environ.get("KONG_STATUS_LISTEN", DEFAULT_STATUS)),
        prefix=pod.resolve_path(shown_prefix),
        shown_prefix=shown_prefix.rstrip("/") or "/",
        declarative_config=_path(environ, "KONG_DECLARATIVE_CONFIG", pod),
        admin_cert=_path(environ, "KONG_ADMIN_SSL_CERT", pod),
        admin_key=_path(environ, "KONG_ADMIN_SSL_CERT_KEY", pod),
        proxy_cert=_path(environ, "KONG_SSL_CERT", pod),
        proxy_key=_path(environ, "KONG_SSL_CERT_KEY", pod),
        client_ca=_path(environ, "KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE", pod),
        verify_client=environ.get("KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT", "off").lower() or "off",
        verify_depth=int(environ.get("KONG_NGINX_ADMIN_SSL_VERIFY_DEPTH", "1")),
        admin_protocols=environ.get("KONG_NGINX_ADMIN_SSL_PROTOCOLS") or DEFAULT_PROTOCOLS,
        session_tickets=_flag(environ, "KONG_NGINX_ADMIN_SSL_SESSION_TICKETS", True),
        session_cache=_flag(environ, "KONG_NGINX_ADMIN_SSL_SESSION_CACHE", True),
        session_timeout=parse_duration(environ.get("KONG_NGINX_ADMIN_SSL_SESSION_TIMEOUT", "1d")),
        client_max_body=parse_size(environ.get("KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE", "10m")),
        body_buffer=parse_size(environ.get("KONG_NGINX_ADMIN_CLIENT_BODY_BUFFER_SIZE", "10m")),
        lmdb_size=parse_size(environ.get("KONG_LMDB_MAP_SIZE", "2048m")),
        workers=2 if workers == "auto" else max(1, int(workers)),
        router_flavor=flavor,
        enterprise=_flag(environ, "KONVERGE_LAB_KONG_ENTERPRISE", False),
        kic=_flag(environ, "KONG_KIC", False),
        timing=Timing.instant() if _flag(environ, "KONVERGE_LAB_KONG_INSTANT", False) else Timing(),
        pod=pod,
        database=database,
        database_file=locate_database(environ, pod) if database == "postgres" else None,
        db_update_frequency=float(environ.get("KONG_DB_UPDATE_FREQUENCY") or 5),
        worker_state_update_frequency=float(environ.get("KONG_WORKER_STATE_UPDATE_FREQUENCY") or 5),
        shown=_shown(environ),
    )


def _shown(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the injected nginx directives by Kong's names; secrets are never among them."""
    return {
        name[5:].lower(): value
        for name, value in environ.items()
        if name.startswith(("KONG_NGINX_", "KONG_LMDB_", "KONG_LOG_LEVEL", "KONG_UPSTREAM_KEEPALIVE"))
    }
