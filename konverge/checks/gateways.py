"""Checks of the proxies themselves: Kong's version and settings, and its limits for a body."""

from __future__ import annotations

import re

from konverge.checks.identity import proxy_settings
from konverge.checks.quantities import parse_quantity
from konverge.checks.registry import Answer, Severity, Stage, check, failed, failed_if, passed, skipped
from konverge.checks.scene import GatewayView, Scene
from konverge.checks.services import require_fleet
from konverge.kong.reading import GatewayInfo

CATEGORY = "Kong"
OLDEST = (3, 4)
"""The oldest version whose answers were looked at (``configuration_hash`` and flattened errors)."""
DEFAULT_LIMIT = 10 * 1024**2
"""kong/templates/kong_defaults.lua: nginx_admin_client_max_body_size = 10m."""
LIMITS = ("KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE", "KONG_NGINX_ADMIN_CLIENT_BODY_BUFFER_SIZE")


def _answering(scene: Scene) -> list[tuple[GatewayView, GatewayInfo]]:
    return [(view, view.info) for view in scene.gateways.get() if view.info is not None]


@check(
    "kong-version",
    CATEGORY,
    Severity.ERROR,
    "Every proxy runs a version of Kong that is understood",
    fix=f"Use Kong {OLDEST[0]}.{OLDEST[1]} or newer.",
    stage=Stage.AFTER,
)
def kong_version(scene: Scene) -> Answer:
    """No proxy is older than the oldest version that is understood."""
    require_fleet(scene)
    found = _answering(scene)
    old = [
        f"{view.name} runs {info.version}"
        for view, info in found
        if tuple(int(part) for part in re.findall(r"\d+", info.version)[:2]) < OLDEST
    ]
    return failed_if(old, ", ".join(sorted({info.version for _, info in found})) or "no proxy")


@check(
    "kong-one-version",
    CATEGORY,
    Severity.WARNING,
    "All proxies run the same version of Kong",
    fix="Finish the rollout: schemas differ between versions, and a configuration may fit one of them only.",
    stage=Stage.AFTER,
)
def kong_one_version(scene: Scene) -> Answer:
    """There is one version in the fleet."""
    require_fleet(scene)
    versions = sorted({info.version for _, info in _answering(scene)})
    return passed(", ".join(versions)) if len(versions) < 2 else failed(f"versions {', '.join(versions)}")


@check(
    "kong-mode",
    CATEGORY,
    Severity.ERROR,
    "The proxies run in the mode of the fleet",
    fix="spec.mode is dbless for KONG_DATABASE=off, and db for proxies that share a database.",
    stage=Stage.AFTER,
)
def kong_mode(scene: Scene) -> Answer:
    """DB-less proxies in a dbless fleet, proxies with a database in a db fleet."""
    fleet = require_fleet(scene)
    wrong = [
        f"{view.name} runs with database {info.database!r}"
        for view, info in _answering(scene)
        if (info.database == "off") != (fleet.spec.mode == "dbless")
    ]
    return failed_if(wrong, fleet.spec.mode)


@check(
    "kong-router",
    CATEGORY,
    Severity.ERROR,
    "The router of the proxies is the one that is rendered for",
    fix="Set KONG_ROUTER_FLAVOR and spec.routerFlavor to the same: expressions are refused by the other routers.",
    stage=Stage.AFTER,
)
def kong_router(scene: Scene) -> Answer:
    """Router flavour of each proxy against the fleet's."""
    fleet = require_fleet(scene)
    wanted = fleet.spec.router_flavor
    wrong = [
        f"{view.name} has router {info.router_flavor}"
        for view, info in _answering(scene)
        if (info.router_flavor == "expressions") != (wanted == "expressions")
    ]
    return failed_if(wrong, wanted)


def _limits(scene: Scene) -> dict[str, float]:
    settings = proxy_settings(scene)
    return {name: parse_size(settings[name]) if settings.get(name) else DEFAULT_LIMIT for name in LIMITS}


def parse_size(text: str) -> float:
    """Return a size of nginx in bytes: it writes k, m, g for powers of 1,024."""
    return parse_quantity(re.sub(r"([kmgKMG])$", lambda unit: f"{unit[1].upper()}i", text))


@check(
    "kong-body-limit",
    CATEGORY,
    Severity.ERROR,
    "The Admin API takes the configuration as large as it is",
    fix=f"Raise {' and '.join(LIMITS)} together (the chart: gateway.maxConfigurationSize).",
    stage=Stage.AFTER,
)
def kong_body_limit(scene: Scene) -> Answer:
    """The limits are above the size of what the sources render to."""
    limits = _limits(scene)
    size = scene.rendering.get().size
    small = [f"{name} is {limit / 1024**2:g} MiB" for name, limit in limits.items() if limit <= size]
    text = f"configuration of {size / 1024**2:.2f} MiB"
    return failed(f"{'; '.join(small)}, the {text}") if small else passed(text)


@check(
    "kong-body-reserve",
    CATEGORY,
    Severity.WARNING,
    "The configuration may double before the Admin API refuses it",
    fix=f"Raise {' and '.join(LIMITS)} together before the configuration has grown.",
    stage=Stage.AFTER,
)
def kong_body_reserve(scene: Scene) -> Answer:
    """The limits are twice the size of the configuration, and equal: a body that spills to a file is not read."""
    limits = _limits(scene)
    if len(set(limits.values())) > 1:
        return failed("the two limits differ: a body between them is spilled to a file, which Kong's readers ignore")
    size, limit = scene.rendering.get().size, min(limits.values())
    text = f"{size / 1024**2:.2f} of {limit / 1024**2:g} MiB"
    return passed(text) if 2 * size < limit else failed(text)


@check(
    "kong-workers",
    CATEGORY,
    Severity.INFO,
    "A proxy has more than one worker",
    fix="KONG_NGINX_WORKER_PROCESSES=2 or more: one worker that rebuilds its router holds up every request.",
    stage=Stage.AFTER,
)
def kong_workers(scene: Scene) -> Answer:
    """Each proxy has two workers or more."""
    require_fleet(scene)
    found = _answering(scene)
    if not found:
        return skipped("no proxy answers")
    return failed_if((f"{view.name} has one worker" for view, info in found if info.workers == 1), "two or more")
