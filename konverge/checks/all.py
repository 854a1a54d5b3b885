"""Every check: importing this module fills the registry."""

from __future__ import annotations

from konverge.checks import (
    api,
    capacity,
    configuration,
    definitions,
    gateways,
    identity,
    legacy,
    orchestration,
    services,
    webhooks,
)
from konverge.checks.registry import CHECKS, Check, Stage

MODULES = (api, definitions, orchestration, legacy, services, identity, capacity, webhooks, gateways, configuration)


def select_checks(*, before: bool) -> list[Check]:
    """Return the checks that are worth asking before a fleet exists, or while it runs, by category."""
    wanted = (Stage.ALWAYS, Stage.BEFORE if before else Stage.AFTER)
    chosen = [record for record in CHECKS.values() if record.stage in wanted]
    order = [module.CATEGORY for module in MODULES]
    return sorted(chosen, key=lambda record: order.index(record.category))
