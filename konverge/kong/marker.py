"""Adds a route to a configuration that tells, on request only, which revision the gateway routes by; no I/O.

The hash tells what is stored; this route tells what the workers have built their routers from. It belongs to
no service and is answered by request-termination. It is matched by host, method, path and a header that holds
the fleet's token, so no client finds it by accident and no route of an Ingress outranks it: Kong ranks by the
number of kinds of conditions first, and by ``priority`` where the router speaks expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from konverge.errors import UsageError

Document = Mapping[str, Any]

NAMESPACE = UUID("6f2d8a4e-9d0b-5a53-8a40-8d0f6d1c2b71")
"""Namespace of the ids of all marker entities; chosen once, never changed."""
PATH = "/.konverge/revision"
HOST = "revision.konverge.internal"
"""A name that no client asks for: ``.internal`` is reserved for private use (ICANN, 2024)."""
HEADER = "X-Konverge-Probe"
TAG = "konverge:marker"
ROUTE_NAME = "konverge-revision"
TOP_PRIORITY = 2**46 - 1
"""The highest priority of an expression route (Kong ``kong/db/schema/entities/routes.lua``)."""
_TOKEN = re.compile(r"[A-Za-z0-9._-]{8,128}")

ANSWERING_PLUGINS = frozenset(
    {
        "acl",
        "acme",
        "ai-prompt-guard",
        "aws-lambda",
        "azure-functions",
        "basic-auth",
        "bot-detection",
        "hmac-auth",
        "ip-restriction",
        "jwt",
        "key-auth",
        "ldap-auth",
        "oauth2",
        "pre-function",
        "rate-limiting",
        "redirect",
        "request-size-limiting",
        "session",
    }
)
"""Bundled plugins that may answer before request-termination does (its priority is 2, theirs are higher)."""


@dataclass(frozen=True, slots=True)
class MarkerRequest:
    """The request that the marker answers with 200 and the revision number as text."""

    path: str
    headers: Mapping[str, str]


def add_marker(document: Document, *, fleet: str, revision: int | str, token: str, flavor: str) -> dict[str, Any]:
    """Return the document with the marker of a revision; an older marker is replaced.

    ``flavor`` is Kong's ``router_flavor``. The token has 8 to 128 letters, digits, dots, dashes and
    underscores; UsageError otherwise.
    """
    if not _TOKEN.fullmatch(token):
        raise UsageError("The probe token of the fleet is not 8 to 128 letters, digits, '.', '-' or '_'")
    marked = remove_marker(document)
    marked["routes"] = [*marked.get("routes", ()), _route(fleet, revision, token, flavor)]
    return marked


def remove_marker(document: Document) -> dict[str, Any]:
    """Return the document without the marker; the order of everything else is kept."""
    routes = document.get("routes")
    if not isinstance(routes, list):
        return dict(document)
    kept = [route for route in routes if TAG not in (route.get("tags") or ())]
    if len(kept) == len(routes):
        return dict(document)
    return {k: kept if k == "routes" else v for k, v in document.items() if k != "routes" or kept}


def find_shadows(document: Document) -> tuple[str, ...]:
    """Return the names of global plugins that may answer in place of the marker, such as key-auth.

    Where there are any, a status other than 200 says nothing about the revision.
    """
    plugins = document.get("plugins")
    names = [
        str(plugin.get("name"))
        for plugin in (plugins if isinstance(plugins, list) else ())
        if plugin.get("enabled", True) and not any(plugin.get(key) for key in ("service", "route", "consumer"))
    ]
    return tuple(sorted(ANSWERING_PLUGINS.intersection(names)))


def build_request(token: str) -> MarkerRequest:
    """Return the request that asks for the revision."""
    return MarkerRequest(PATH, {"Host": HOST, HEADER: token})


def _route(fleet: str, revision: int | str, token: str, flavor: str) -> dict[str, Any]:
    return {
        "id": str(uuid5(NAMESPACE, f"{fleet}/route")),
        "name": ROUTE_NAME,
        "protocols": ["http", "https"],
        **(_expression(token) if flavor == "expressions" else _conditions(token)),
        "tags": [TAG],
        "plugins": [
            {
                "id": str(uuid5(NAMESPACE, f"{fleet}/plugin")),
                "name": "request-termination",
                "config": {"status_code": 200, "content_type": "text/plain", "body": str(revision)},
                "tags": [TAG],
            }
        ],
    }


def _conditions(token: str) -> dict[str, Any]:
    return {
        "hosts": [HOST],
        "methods": ["GET"],
        "paths": [f"~{re.escape(PATH)}$"],
        "headers": {HEADER: [token]},
    }


def _expression(token: str) -> dict[str, Any]:
    field = "http.headers." + HEADER.lower().replace("-", "_")
    expression = (
        f'(http.host == "{HOST}") && (http.method == "GET") && (http.path == "{PATH}") && ({field} == "{token}")'
    )
    return {"expression": expression, "priority": TOP_PRIORITY}
