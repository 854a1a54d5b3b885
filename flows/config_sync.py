"""config-sync: render once, push to every proxy in waves, read back, probe, judge; go back where it does harm."""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound

from flows.announcing import announce_run
from konverge.errors import VerificationFailed
from konverge.model.target import Target
from konverge.operate.syncing import SyncReport, Verdict
from tasks.announcing import announce
from tasks.syncing import Session, open_session, open_shard

SHARD_DEPLOYMENT = "config-sync-shard/shard"


def tell_progress(told: dict[str, Any]) -> None:
    """Tell the command that waits for this run how far it is."""
    announce({"progress": told})


@flow(name="config-sync", flow_run_name="sync-{target.fleet}", validate_parameters=True)
async def config_sync(
    target: Target, author: str = "", revision: int | None = None, shards: int = 1
) -> dict[str, int | str]:
    """Bring the fleet to the current sources, or to a stored revision, and return the counts and the verdict.

    While a revision is pinned (``spec.pinnedRevision``), that one stands for the sources. A revision that proves
    harmful is taken back and fails the run; one that is superseded ends at the boundary of a wave, which is no
    failure. With ``shards`` above 1 the waves after the canary run in as many sub-flows, each on a worker of its own
    where the deployment ``config-sync-shard/shard`` exists.
    """
    announce_run()
    async with open_session(target, tell_progress) as session:
        number = revision if revision is not None else session.fleet.spec.pinned_revision or None
        desired = await session.load(number) if number is not None else await session.render(author)
        if shards > 1 and session.fleet.spec.mode == "dbless":
            report = await _sync_shards(session, desired, target, shards)
        else:
            report = await session.sync(desired, session.proxies)
        counts = await session.summarise(report)
        report.raise_for_harm()
        return counts


async def _sync_shards(session: Session, desired: Any, target: Target, shards: int) -> SyncReport:
    """Sync the canary here and the rest in sub-flows; where one of them finds harm, everybody goes back."""
    canary = session.pick_canary()
    report = await session.sync(desired, canary)
    if report.verdict is not Verdict.COMPLETED:
        return report
    number = report.revision.number
    parameters = [
        {"target": target, "revision": number, "shard": shard, "shards": shards, "done": [p.name for p in canary]}
        for shard in range(shards)
    ]
    verdicts = await asyncio.gather(*(_run_shard(values) for values in parameters), return_exceptions=True)
    failures = [verdict for verdict in verdicts if isinstance(verdict, BaseException)]
    harm = next((failure for failure in failures if isinstance(failure, VerificationFailed)), None)
    if harm is not None:
        return await session.take_back(report, harm)
    if failures:
        raise failures[0]
    superseded = any(verdict == Verdict.SUPERSEDED.value for verdict in verdicts)
    return await session.merge(report, Verdict.SUPERSEDED if superseded else Verdict.COMPLETED)


async def _run_shard(parameters: dict[str, Any]) -> str:
    """Run a shard as a deployment, and here where there is none."""
    try:
        values = {**parameters, "target": parameters["target"].to_json()}
        run = await arun_deployment(SHARD_DEPLOYMENT, parameters=values)
    except ObjectNotFound:
        return str(await config_sync_shard(**parameters))
    assert run.state is not None, "a deployment is waited for"
    if run.state.is_completed():
        return Verdict.COMPLETED.value
    raise VerificationFailed(
        f"Shard {parameters['shard']} of revision {parameters['revision']} is {run.state.name}: flow run {run.id}",
        reason="ShardFailed",
        hint="explanation/sync.md#shards",
    )


@flow(name="config-sync-shard", flow_run_name="sync-{target.fleet}-shard-{shard}", validate_parameters=True)
async def config_sync_shard(target: Target, revision: int, shard: int, shards: int, done: list[str]) -> str:
    """Bring one shard of the fleet to a stored revision that its canary took, and return the verdict.

    ``done`` names the proxies of the canary. A harmful revision is taken back in this shard and fails the run.
    """
    async with open_shard(target, shard, shards, done, tell_progress) as session:
        report = await session.sync(await session.load(revision), session.proxies)
        report.raise_for_harm()
        return report.verdict.value
