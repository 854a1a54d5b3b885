"""Tells the process that started a flow which run it is, and records the run's address in Kubernetes."""

from __future__ import annotations

import os

from prefect.runtime import flow_run

from tasks.announcing import announce


def run_url() -> str:
    """Return the address of this run's page in the UI; "" outside a run or without a server."""
    api = os.environ.get("PREFECT_API_URL", "")
    identifier = flow_run.get_id()
    return f"{api.removesuffix('/api')}/runs/flow-run/{identifier}" if api and identifier else ""


def announce_run() -> str:
    """Write the run's id and address for the command that waits for it, and return the address."""
    url = run_url()
    announce({"flow_run": flow_run.get_id(), "url": url})
    return url
