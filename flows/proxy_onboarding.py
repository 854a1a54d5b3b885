"""proxy-onboarding: identity, then configuration, then traffic; always in that order."""

from __future__ import annotations

from prefect import flow

from flows.announcing import announce_run
from konverge.model.target import Target
from tasks.syncing import onboard_batch


@flow(name="proxy-onboarding", flow_run_name="onboard-{target.fleet}", validate_parameters=True)
async def proxy_onboarding(target: Target, pods: list[str] | None = None) -> dict[str, str]:
    """Onboard the named pods, or every proxy that is not ready, and return the reason for each."""
    announce_run()
    outcomes = await onboard_batch(target, pods or [])
    return {outcome.proxy: outcome.outcome.reason for outcome in outcomes}
