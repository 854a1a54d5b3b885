"""drift-audit: what every proxy has loaded against what it should have; found, explained, healed by policy."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from prefect import flow

from flows.announcing import announce_run
from konverge.model.target import Target
from tasks.drifting import audit, heal, publish_drift


@flow(name="drift-audit", flow_run_name="drift-{target.fleet}", validate_parameters=True)
async def drift_audit(target: Target, healing: bool | None = None, jitter_seconds: float = 0.0) -> dict[str, Any]:
    """Audit a fleet and return the report.

    ``healing`` True brings every drifted proxy back, False none, None those that ``spec.drift`` lets be healed.
    ``jitter_seconds`` spreads scheduled audits of many fleets over that time.
    """
    announce_run()
    await asyncio.sleep(random.uniform(0.0, jitter_seconds))
    report = await audit(target)
    if report.drifted and healing is not False:
        report = await heal(target, report, everything=bool(healing))
    await publish_drift(target, report)
    return report.to_json()
