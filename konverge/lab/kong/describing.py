"""``configuration`` of GET /: what a default Kong shows, with the settings of this node in it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from konverge.lab.kong.listen import Listen
from konverge.lab.kong.settings import Settings

HIDDEN = "******"


def format_size(count: int) -> str:
    """Return bytes in nginx's notation."""
    if count and count % 1048576 == 0:
        return f"{count // 1048576}m"
    return f"{count // 1024}k" if count and count % 1024 == 0 else str(count)


def _directives(settings: Settings) -> dict[str, str]:
    """Return the directives of the Admin server block."""
    found = {
        "client_body_buffer_size": format_size(settings.body_buffer),
        "client_max_body_size": format_size(settings.client_max_body),
    }
    if settings.verify_client != "off":
        found["ssl_client_certificate"] = str(settings.client_ca or "")
        found["ssl_verify_client"] = settings.verify_client
        found["ssl_verify_depth"] = str(settings.verify_depth)
    if not settings.session_tickets:
        found["ssl_session_tickets"] = "off"
    if not settings.session_cache:
        found["ssl_session_cache"] = "off"
    return found


def describe_configuration(
    settings: Settings, roles: Iterable[tuple[str, list[Listen]]], plugins: list[str]
) -> dict[str, Any]:
    """Return the configuration; keys and secrets are hidden as Kong hides them."""
    prefix = settings.shown_prefix.rstrip("/")
    text = files(__package__).joinpath("admin/configuration.json").read_text()
    shown: dict[str, Any] = json.loads(text.replace("{prefix}", prefix))
    directives = _directives(settings)
    shown |= {f"nginx_admin_{name}": value for name, value in directives.items()}
    shown["nginx_admin_directives"] = [{"name": name, "value": value} for name, value in sorted(directives.items())]
    shown["nginx_main_directives"] = [
        {"value": "on", "name": "daemon"},
        {"value": str(settings.workers), "name": "worker_processes"},
        {"value": "auto", "name": "worker_rlimit_nofile"},
    ]
    shown |= settings.shown
    for role, listens in roles:
        shown[f"{role}_listen"] = [listen.text() for listen in listens] or ["off"]
        shown[f"{role}_listeners"] = [listen.describe() for listen in listens] or {}
        shown[f"{role}_ssl_enabled"] = any(listen.ssl for listen in listens)
    certificate = str(settings.admin_cert) if settings.admin_cert else f"{prefix}/ssl/admin-kong-default.crt"
    return shown | {
        "database": settings.database,
        "db_update_frequency": settings.db_update_frequency,
        "worker_state_update_frequency": settings.worker_state_update_frequency,
        "router_flavor": settings.router_flavor,
        "prefix": prefix,
        "kic": settings.kic,
        "loaded_plugins": dict.fromkeys(plugins, True),
        "lmdb_map_size": format_size(settings.lmdb_size),
        "admin_ssl_cert": [certificate],
        "admin_ssl_cert_key": HIDDEN,
        "nginx_worker_processes": str(settings.workers),
        "nginx_main_worker_processes": str(settings.workers),
    }
