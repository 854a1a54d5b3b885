"""Runs one flow and tells what became of it: ``python -m flows.run NAME``, parameters as JSON on standard input.

The CLI starts this in a process of its own, so that the library never imports Prefect. The first line on
standard output is ``{"flow_run": ID}``, the last one ``{"result": ...}`` or ``{"error": {reason, message, hint}}``;
``{"progress": ...}`` may come between them.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import orjson

from konverge.errors import CheckRefused, KonvergeError
from tasks.announcing import announce

FLOWS = {
    "config-sync": ("flows.config_sync", "config_sync"),
    "proxy-onboarding": ("flows.proxy_onboarding", "proxy_onboarding"),
    "drift-audit": ("flows.drift_audit", "drift_audit"),
    "cert-rotation": ("flows.cert_rotation", "cert_rotation"),
    "legacy-migration": ("flows.legacy_migration", "legacy_migration"),
    "migration-rollback": ("flows.legacy_migration", "migration_rollback"),
}


async def run_flow(name: str, parameters: dict[str, Any]) -> Any:
    """Run a flow in this process against the configured Prefect server and return its result."""
    module, attribute = FLOWS[name]
    flow = getattr(importlib.import_module(module), attribute)
    return await flow(**parameters)


def main() -> int:
    """Run the named flow; 0 when it completed, 1 when it failed, 3 when a check refused it."""
    parameters = orjson.loads(sys.stdin.buffer.read() or b"{}")
    try:
        result = asyncio.run(run_flow(sys.argv[1], parameters))
    except KonvergeError as error:
        announce({"error": error.triple(), "type": type(error).__name__})
        return 3 if isinstance(error, CheckRefused) else 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        announce({"error": {"reason": "Cancelled", "message": "The flow run was cancelled", "hint": ""}})
        return 130
    announce({"result": result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
