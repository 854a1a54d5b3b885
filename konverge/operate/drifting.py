"""Finds proxies that run something else than they should, says what differs, and brings them back.

Hashes are compared, of every proxy. Entities are read only where no stored revision tells what a proxy runs: page
by page, slowly, of few proxies, one of each unknown configuration. ``GET /config`` is never called: with 10,000
routes it stalls a gateway for seconds. A database has no hash of what is in it: its entities are compared, once for
all proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from konverge.decide.drifting import is_syncing, judge_database, judge_drift
from konverge.errors import KonvergeError
from konverge.kong.admin import AdminClient
from konverge.kong.declarative import Configuration, Difference, compare, drop_marker, flatten, read_entities
from konverge.kong.declarative.comparing import ONLY_LEFT, ONLY_RIGHT
from konverge.kube.client import KubeClient
from konverge.model.drift import DriftAction, DriftKind, DriftReport, FieldDifference, ProxyDrift
from konverge.model.fleet import Fleet
from konverge.model.proxy import ZERO_HASH, Proxy, ProxyOutcome
from konverge.model.revision import Revision, RevisionRecord
from konverge.operate.claiming import claim_fleet
from konverge.operate.clock import Clock, utc_now
from konverge.operate.databases import visit_database
from konverge.operate.discovering import discover_proxies
from konverge.operate.drifting_databases import Contents, read_contents
from konverge.operate.fleets import load_fleet
from konverge.operate.gathering import gather_all
from konverge.operate.identities import load_controller
from konverge.operate.ports import Gateways
from konverge.operate.revisions import list_records, load_revision
from konverge.operate.syncing import record_outcome, refuse_paused
from konverge.operate.visiting import visit_all
from konverge.pki.contexts import build_client_context

AT_ONCE = 20
"""Proxies whose hash is read at the same time."""
SECOND_LOOK = 3.0
"""Seconds after which what looks like drift is looked at again: a push of a moment ago is none."""
READ_PROXIES = 3
"""Proxies whose entities are paged in one audit; the others are told by their hash."""
READ_SECONDS = 180.0
"""How long the paging of one proxy may take; then it is told by its hash."""
READ_REST = 0.05
"""Seconds after each page of 200 entities; one page at a time."""
LISTED = 50
"""Differences of one proxy that are listed; the rest is counted."""
_CHANGES = {ONLY_LEFT: "added", ONLY_RIGHT: "missing"}

EntityReader = Callable[[Proxy], Awaitable[Configuration]]
"""Reads what a proxy has loaded, entity by entity, slowly."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What every proxy of a fleet should have loaded now, and which other configurations the fleet has had."""

    number: int
    hash: str
    records: tuple[RevisionRecord, ...]

    @property
    def known(self) -> Mapping[str, int]:
        """Hash to number; of equal configurations the newest number."""
        return {record.spec.hash: record.number for record in reversed(self.records)}


async def find_desired(kube: KubeClient, fleet: Fleet) -> Desired:
    """Return what is in force: the pinned revision, else the current one; number 0 before the first sync."""
    records = tuple(await list_records(kube, fleet))
    number = fleet.spec.pinned_revision or fleet.status.current_revision
    recorded = fleet.status.current_hash if number == fleet.status.current_revision else ""
    found = next((record.spec.hash for record in records if record.number == number), recorded)
    return Desired(number if found else 0, found, records)


async def audit_fleet(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    read: EntityReader,
    *,
    clock: Clock = utc_now,
    second_look: float | None = None,
) -> DriftReport:
    """Compare what every proxy has loaded with what it should have; nothing is changed.

    What looks like drift is looked at once more after ``second_look`` seconds, with the fleet read anew, so that a
    sync is not mistaken for it. Of a fleet with a database the entities are compared, once for all proxies, and the
    first that answers has them in its row.
    """
    look, database = (_look_at_database, True) if fleet.spec.mode == "db" else (_look, False)
    desired = await find_desired(kube, fleet)
    proxies = await discover_proxies(kube, fleet) if desired.number else []
    found = await look(kube, gateways, fleet, desired, proxies, clock)
    suspects = [proxy for proxy in proxies if found[proxy.name].drift.kind.drifted]
    if suspects:
        await asyncio.sleep(SECOND_LOOK if second_look is None else second_look)
        fleet = await load_fleet(kube, fleet.name, fleet.namespace)
        desired = await find_desired(kube, fleet)
        found |= await look(kube, gateways, fleet, desired, suspects, clock)
        drifted = [s for s in suspects if found[s.name].drift.kind.drifted]
        found |= await _explain(kube, fleet, desired, [] if database else drifted, found, read)
    return DriftReport(
        fleet=fleet.name,
        namespace=fleet.namespace,
        revision=desired.number,
        hash=desired.hash,
        policy=fleet.spec.drift,
        proxies=tuple(found[proxy.name] for proxy in proxies),
    )


async def _look(
    _kube: KubeClient, gateways: Gateways, fleet: Fleet, desired: Desired, proxies: Sequence[Proxy], clock: Clock
) -> dict[str, ProxyDrift]:
    """Read the hashes of proxies and judge them, by name."""
    slots = asyncio.Semaphore(AT_ONCE)
    known, syncing = desired.known, is_syncing(desired.records, clock())

    async def look(proxy: Proxy) -> ProxyDrift:
        async with slots:
            loaded = await read_hash(gateways, proxy)
        drift = judge_drift(
            loaded, desired.hash, known, policy=fleet.spec.drift, serving=proxy.ready, syncing=syncing
        )
        return ProxyDrift(proxy=proxy.name, loaded_hash=loaded or "", drift=drift)

    return {row.proxy: row for row in await gather_all(look(proxy) for proxy in proxies)}


async def _look_at_database(
    kube: KubeClient, gateways: Gateways, fleet: Fleet, desired: Desired, proxies: Sequence[Proxy], clock: Clock
) -> dict[str, ProxyDrift]:
    """Compare the database through one proxy and judge all of them by it, by name; the silent ones stay unjudged."""
    if not proxies:
        return {}
    revision = await load_revision(kube, fleet, desired.number)
    contents = await read_contents(kube, fleet, gateways, revision, proxies)
    silent = judge_drift(None, desired.hash, desired.known)
    rows = {proxy.name: ProxyDrift(proxy=proxy.name, drift=silent) for proxy in proxies}
    if contents is None:
        return rows
    drift = judge_database(
        contents.hash,
        contents.differing,
        desired.hash,
        desired.known,
        equal=contents.equal,
        empty=contents.empty,
        policy=fleet.spec.drift,
        serving=any(proxy.ready for proxy in proxies),
        syncing=is_syncing(desired.records, clock()),
    )
    names = [proxy.name for proxy in proxies if proxy.name not in contents.silent]
    first = _list_contents(ProxyDrift(proxy=names[0], loaded_hash=contents.hash or ZERO_HASH, drift=drift), contents)
    note = f"its database is that of {names[0]}" if drift.kind.drifted else ""
    other = first.model_copy(update={"differences": (), "uncounted": 0, "note": note})
    return rows | {name: other.model_copy(update={"proxy": name}) for name in names[1:]} | {names[0]: first}


def _list_contents(row: ProxyDrift, contents: Contents) -> ProxyDrift:
    """Return the row with what differs in the database."""
    listed = contents.differences
    marker = "" if listed or contents.equal else "no entity differs but the marker that tells the revision"
    return row.model_copy(
        update={
            "differences": listed[:LISTED],
            "uncounted": max(0, len(listed) - LISTED),
            "note": contents.note or marker,
        }
    )


async def read_hash(gateways: Gateways, proxy: Proxy) -> str | None:
    """Return the loaded hash, or None where the proxy does not answer: silence is no drift."""
    try:
        return await gateways.reach(proxy).loaded_hash()
    except KonvergeError:
        return None


async def _explain(
    kube: KubeClient,
    fleet: Fleet,
    desired: Desired,
    drifted: Sequence[Proxy],
    found: Mapping[str, ProxyDrift],
    read: EntityReader,
) -> dict[str, ProxyDrift]:
    """Say of each drifted proxy which entities differ; equal configurations are compared once."""
    if not drifted:
        return {}
    wanted = flatten_revision((await load_revision(kube, fleet, desired.number)).content)
    told: dict[str, ProxyDrift] = {}
    rows: dict[str, ProxyDrift] = {}
    paged = 0
    for proxy in drifted:
        row = found[proxy.name]
        if row.loaded_hash not in told:
            foreign = row.drift.kind is DriftKind.FOREIGN
            if foreign and paged == READ_PROXIES:
                rows[proxy.name] = row.replace(note=f"its entities were not read: {READ_PROXIES} others were")
                continue
            paged += foreign
            told[row.loaded_hash] = await _compare_loaded(kube, fleet, proxy, row, wanted, read)
        same = told[row.loaded_hash]
        rows[proxy.name] = row.model_copy(
            update={"differences": same.differences, "uncounted": same.uncounted, "note": same.note}
        )
    return rows


async def _compare_loaded(
    kube: KubeClient, fleet: Fleet, proxy: Proxy, row: ProxyDrift, wanted: Configuration, read: EntityReader
) -> ProxyDrift:
    """Return the row with the differences of its configuration, or with a note why there are none."""
    if row.drift.kind is DriftKind.LOST:
        return row.model_copy(update={"note": "it has no entities"})
    try:
        if row.drift.kind is DriftKind.OLD:
            revision = await load_revision(kube, fleet, row.drift.revision)
            loaded = flatten_revision(revision.content)
        else:
            async with asyncio.timeout(READ_SECONDS):
                loaded = drop_marker(await read(proxy))
        differences = await asyncio.to_thread(compare, loaded, wanted)
    except TimeoutError:
        return row.model_copy(update={"note": f"its entities were not read within {READ_SECONDS:.0f} s"})
    except KonvergeError as error:
        return row.model_copy(update={"note": f"its entities cannot be read: {error.message}"})
    listed = tuple(show_differences(differences))
    note = "" if listed else "no entity differs: the same configuration in other bytes"
    return row.model_copy(
        update={"differences": listed[:LISTED], "uncounted": max(0, len(listed) - LISTED), "note": note}
    )


def flatten_revision(content: bytes) -> Configuration:
    """Return the bytes of a revision as a flat configuration, without the marker."""
    return drop_marker(flatten(orjson.loads(content)))


def show_differences(differences: Iterable[Difference]) -> list[FieldDifference]:
    """Turn differences of (loaded, desired) into values; they are redacted already."""
    return [
        FieldDifference(
            kind=d.kind,
            entity=d.entity,
            change=_CHANGES.get(d.change, "changed"),
            field=d.field,
            loaded=d.left,
            desired=d.right,
        )
        for d in differences
    ]


async def heal_drift(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    report: DriftReport,
    *,
    everything: bool = False,
    clock: Clock = utc_now,
) -> DriftReport:
    """Push the desired revision to the drifted proxies that the policy lets be healed; return how it went.

    ``everything`` heals whatever the policy. CheckRefused for a paused fleet; Busy where a sync writes the database
    and does not make way.
    """
    refuse_paused(fleet)
    names = {row.proxy for row in report.drifted if everything or row.drift.action is DriftAction.HEAL}
    everybody = await discover_proxies(kube, fleet)
    proxies = [proxy for proxy in everybody if proxy.name in names]
    if not proxies:
        return report
    revision = await load_revision(kube, fleet, report.revision)

    async def note(proxy: Proxy, outcome: ProxyOutcome) -> None:
        await record_outcome(kube, fleet, proxy, revision, outcome, clock)

    if fleet.spec.mode == "db":
        outcomes = await _heal_database(kube, fleet, gateways, revision, everybody, note)
    else:
        outcomes = await visit_all(gateways, revision, proxies, fleet.spec.rollout.concurrency, note=note)
    by_name = {outcome.proxy: outcome for outcome in outcomes if outcome.proxy in names}
    rows = [
        row.model_copy(update={"healed": by_name[row.proxy].ok, "healing": by_name[row.proxy].outcome})
        if row.proxy in by_name
        else row
        for row in report.proxies
    ]
    return report.model_copy(update={"proxies": tuple(rows)})


async def _heal_database(
    kube: KubeClient,
    fleet: Fleet,
    gateways: Gateways,
    revision: Revision,
    proxies: Sequence[Proxy],
    note: Callable[[Proxy, ProxyOutcome], Awaitable[None]],
) -> list[ProxyOutcome]:
    """Write the difference into the database, as a sync does and in its turn; nothing where a sync was faster."""
    async with claim_fleet(kube, fleet):
        fleet = await load_fleet(kube, fleet.name, fleet.namespace)
        if (await find_desired(kube, fleet)).hash != revision.hash:
            return []
        return await visit_database(kube, fleet, gateways, revision, proxies, note=note)


@asynccontextmanager
async def open_reader(kube: KubeClient, fleet: Fleet, clock: Clock = utc_now) -> AsyncIterator[EntityReader]:
    """Open what reads the entities of a fleet's proxies with the controller's identity."""
    files = await load_controller(kube, fleet, clock)
    context = build_client_context(files.bundle, files.identity)

    async def read(proxy: Proxy) -> Configuration:
        async with AdminClient(
            f"https://{proxy.ip}:{proxy.admin_port}",
            context=context,
            server_name=proxy.server_name,
            certificate=files.identity.certificate,
            clock=clock,
        ) as admin:
            return await read_entities(admin, at_once=1, rest=READ_REST)

    yield read


def describe_drift(row: ProxyDrift) -> str:
    """Return one sentence on a proxy: what it runs, and what became of it."""
    if row.healed is None:
        return row.drift.outcome.message
    ending = "brought back" if row.healed else f"not brought back: {row.healing.message if row.healing else ''}"
    return f"{row.drift.outcome.message}; {ending}"
