"""How fleets look in a terminal: a head, the sick proxies first, and where to read on; it fits 80 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from konverge.decide.assessing import URGENCY, State, classify_proxy, notice_of
from konverge.errors import DOCS
from konverge.model.condition import find_condition
from konverge.model.fleet import Fleet
from konverge.model.proxy import ProxyStatus

Seen = tuple[Fleet, Mapping[str, ProxyStatus]]

SHOWN = 20
"""Healthy proxies of one fleet that are shown without ``--all``; sick ones always are."""
STYLES = {
    State.SERVING: "green",
    State.EXPIRING: "yellow",
    State.OUTDATED: "yellow",
    State.JOINING: "blue",
    State.DRIFTED: "red",
    State.QUARANTINED: "bold red",
}


def draw_fleets(seen: Sequence[Seen], now: datetime, *, wide: bool = False, everything: bool = False) -> Group:
    """Return every fleet, one below the other."""
    parts: list[RenderableType] = []
    for fleet, proxies in seen:
        if parts:
            parts.append(Text())
        parts += draw_fleet(fleet, proxies, now, wide=wide, everything=everything)
    return Group(*parts)


def draw_fleet(
    fleet: Fleet, proxies: Mapping[str, ProxyStatus], now: datetime, *, wide: bool = False, everything: bool = False
) -> list[RenderableType]:
    """Return head, notices, table and what was left out of one fleet."""
    notice = notice_of(fleet.spec)
    states = {name: classify_proxy(status, now, notice) for name, status in proxies.items()}
    parts: list[RenderableType] = [_draw_head(fleet, proxies, now), *_draw_notices(fleet)]
    if not proxies:
        return [*parts, Text("no proxy was seen yet", style="dim")]
    shown = choose_rows(states, None if everything else SHOWN)
    parts.append(_draw_table(shown, proxies, states, now, wide))
    hidden = Counter(states[name].value for name in states if name not in set(shown))
    if hidden:
        told = ", ".join(f"{count} {state}" for state, count in sorted(hidden.items()))
        parts.append(Text(f"and {told} (--all shows them)", style="dim"))
    return parts + _draw_hints([proxies[name] for name in shown if states[name] is not State.SERVING])


def choose_rows(states: Mapping[str, State], most: int | None) -> list[str]:
    """Return the names that are shown, the most urgent first; of the serving ones as many as fit into ``most``."""
    names = sorted(states, key=lambda name: (-URGENCY[states[name]], name))
    if most is None:
        return names
    sick = [name for name in names if states[name] is not State.SERVING]
    return names[: max(len(sick), most)]


def _draw_head(fleet: Fleet, proxies: Mapping[str, ProxyStatus], now: datetime) -> Text:
    status = fleet.status
    synced = sum(1 for proxy in proxies.values() if proxy.synced)
    serving = sum(1 for proxy in proxies.values() if proxy.traffic_ready)
    head = Text(f"{fleet.namespace}/{fleet.name}", style="bold")
    good = "" if status.last_good_revision == status.current_revision else f" (last good {status.last_good_revision})"
    head.append(f"  revision {status.current_revision}{good}", style="not bold")
    head.append(f", {synced} of {len(proxies)} up to date, {serving} serving", style="not bold")
    head.append(f", synced {describe_age(status.last_sync, now)}", style="not bold dim")
    return head


def _draw_notices(fleet: Fleet) -> list[RenderableType]:
    texts: list[RenderableType] = []
    if fleet.spec.paused:
        texts.append(Text("  paused: nothing is pushed, rotated or onboarded", style="yellow"))
    if fleet.spec.pinned_revision:
        texts.append(Text(f"  pinned to revision {fleet.spec.pinned_revision}", style="yellow"))
    for kind in ("Setback", "RunnerBlocked", "Quarantined", "Drift", "IdentityExpiring"):
        condition = find_condition(fleet.status.conditions, kind)
        if condition is not None and condition.status == "True":
            texts.append(Text(f"  {condition.reason}: {condition.message}", style="yellow"))
    return texts


def _draw_table(
    names: Sequence[str], proxies: Mapping[str, ProxyStatus], states: Mapping[str, State], now: datetime, wide: bool
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("STATE", "REV", "PUSHED", "MTLS"):
        table.add_column(column, no_wrap=True)
    if wide:
        for column in ("NODE", "IP", "KONG", "HASH", "IDENTITY"):
            table.add_column(column, no_wrap=True)
    # The names of pods are long and differ at the end: they get what is left, and are folded, never cut.
    table.add_column("PROXY, WHY NOT", overflow="fold")
    for name in names:
        table.add_row(*_draw_row(name, proxies[name], states[name], now, wide))
    return table


def _draw_row(name: str, status: ProxyStatus, state: State, now: datetime, wide: bool) -> list[Text]:
    loaded = "-" if status.loaded_revision is None else str(status.loaded_revision)
    revision = loaded if status.synced else f"{loaded} of {status.desired_revision}"
    row = [
        Text(state.value, style=STYLES[state]),
        Text(revision, style="" if status.synced else "red"),
        Text(describe_age(status.last_push, now, short=True)),
        Text.from_markup(describe_remaining(status.mtls.expires, now)),
    ]
    if wide:
        row += [Text(word) for word in (status.node, status.ip, status.version)]
        row += [Text(status.loaded_hash[:12]), Text(status.mtls.subject)]
    told = Text(name)
    if not (status.traffic_ready and status.synced):
        told.append("\n" + f"{status.reason}: {status.message}".rstrip(": "), style=STYLES[state])
    return [*row, told]


def _draw_hints(sick: Sequence[ProxyStatus]) -> list[RenderableType]:
    hints = Counter(status.hint for status in sick if status.hint)
    return [
        Text(f"  see {DOCS}{hint}" + (f" ({count} proxies)" if count > 1 else ""), style="dim", overflow="fold")
        for hint, count in hints.most_common()
    ]


def describe_age(moment: datetime | None, now: datetime, *, short: bool = False) -> str:
    """Return how long ago something was, in the largest fitting unit."""
    if moment is None:
        return "-" if short else "never"
    seconds = max(0.0, (now - moment).total_seconds())
    for unit, size, most in (("s", 1, 120), ("m", 60, 120), ("h", 3600, 48)):
        if seconds < size * most:
            return f"{seconds / size:.0f}{unit}" + ("" if short else " ago")
    return f"{seconds / 86400:.0f}d" + ("" if short else " ago")


def describe_remaining(expires: datetime | None, now: datetime) -> str:
    """Return how long a certificate is still valid, in the largest fitting unit, as markup."""
    if expires is None:
        return "[red]none[/]"
    hours = (expires - now).total_seconds() / 3600
    if hours <= 0:
        return "[red]expired[/]"
    return f"{hours / 24:.0f}d" if hours >= 48 else f"{hours:.0f}h"


def describe_plainly(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Return fleets and proxies as JSON shows them."""
    return [
        {
            "name": fleet.name,
            "namespace": fleet.namespace,
            "paused": fleet.spec.paused,
            "pinnedRevision": fleet.spec.pinned_revision,
            "status": fleet.status.to_json(),
            "proxies": {name: status.to_json() for name, status in sorted(proxies.items())},
        }
        for fleet, proxies in seen
    ]
