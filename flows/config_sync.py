"""config-sync: render once, push to every proxy in waves, read back, probe."""

from __future__ import annotations

from prefect import flow

from flows.announcing import announce_run
from konverge.model.target import Target
from tasks.syncing import plan_sync, render_revision, summarise, sync_wave


@flow(name="config-sync", flow_run_name="sync-{target.fleet}", validate_parameters=True)
async def config_sync(target: Target, author: str = "", revision: int | None = None) -> dict[str, int]:
    """Bring the fleet to the current sources, or to a stored revision, and return the counts.

    A wave that proves the revision harmful stops the run; the proxies after it keep what they have.
    """
    announce_run()
    number = revision if revision is not None else await render_revision(target, author)
    try:
        for wave in await plan_sync(target):
            await sync_wave(target, number, wave)
    finally:
        counts = await summarise(target, number)
    return counts
