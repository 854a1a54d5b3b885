"""Routes that nobody can reach yet: a new route stays closed until its plugins are there; no I/O.

A plugin can only be created after its route. Between the two the route would work without it, which is the wrong
moment for a plugin that authenticates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLOSED_HOST = "closed.konverge.internal"
"""A name that no client asks for: ``.internal`` is reserved for private use (ICANN, 2024)."""
_STREAM = frozenset({"tcp", "tls", "tls_passthrough", "udp"})


def close_route(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a route with a condition that no request meets; a route for streams cannot be closed: as it is."""
    if _STREAM & set(body.get("protocols") or ()):
        return dict(body)
    if body.get("expression"):
        return {**body, "expression": f'http.host == "{CLOSED_HOST}"'}
    return {**body, "hosts": [CLOSED_HOST]}


def is_closed(entity: Mapping[str, Any]) -> bool:
    """Tell whether a route is closed: a run that ended early may have left it so."""
    return entity.get("hosts") == [CLOSED_HOST] or CLOSED_HOST in str(entity.get("expression") or "")
