"""How certificates and rotations are shown: tables for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from konverge.cli.output import console
from konverge.cli.showing import describe_remaining
from konverge.model.rotation import CertificateView, ProxyIdentity, RotationReport, RotationState


@dataclass(frozen=True, slots=True)
class Survey:
    """What is stored for a fleet, and what its proxies were seen to show."""

    stored: tuple[CertificateView, ...]
    proxies: tuple[ProxyIdentity, ...]
    names: Mapping[str, str]
    """Subjects of authorities by fingerprint."""

    @property
    def sound(self) -> bool:
        """Whether nothing is due and every proxy runs with what is stored for it."""
        return not any(view.due for view in self.stored) and not any(proxy.seen for proxy in self.proxies)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; authorities are named as well as fingerprinted."""
        return {
            "certificates": [view.to_json() for view in self.stored],
            "proxies": [
                {**proxy.to_json(), "trustedAuthorities": [self.names.get(name, name) for name in proxy.trusts]}
                for proxy in self.proxies
            ],
        }


def print_survey(survey: Survey) -> None:
    """Print two tables: what is stored, and what each proxy shows."""
    now = datetime.now(UTC)
    stored = _table("ROLE", "SUBJECT", "SERIAL", "VALID FOR", "RENEW AT", "DUE")
    for view in survey.stored:
        due = "[yellow]yes[/]" if view.due else "no"
        remaining = describe_remaining(view.expires, now)
        renewal = f"{view.renew_at:%Y-%m-%d %H:%M}"
        stored.add_row(view.role, view.subject, _short(view.serial), remaining, renewal, due)
    console.print(stored)
    if not survey.proxies:
        return
    shown = _table("PROXY", "SHOWS", "VALID FOR", "TRUSTS", "LETS US IN", "WHAT IS WRONG")
    for proxy in survey.proxies:
        shown.add_row(
            proxy.proxy,
            _short(proxy.serial) or "-",
            describe_remaining(proxy.expires, now) if proxy.expires else "-",
            ", ".join(_generation(survey.names.get(name, name)) for name in proxy.trusts) or "-",
            "yes" if proxy.accepted else "[red]no[/]",
            proxy.seen,
        )
    console.print()
    console.print(shown)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _short(serial: str) -> str:
    """Return enough of a serial to tell certificates apart; -o json has all of it."""
    return serial[:12]


def _generation(subject: str) -> str:
    """Return the part of an authority's subject in which generations differ."""
    common = next((part.removeprefix("CN=") for part in subject.split(",") if part.startswith("CN=")), subject)
    return " ".join(common.split()[-2:])


def print_progress(progress: Mapping[str, Any]) -> None:
    """Print a line for what a step did to a proxy, and one for its end."""
    step, proxy = str(progress.get("step", "")), progress.get("proxy")
    if proxy:
        mark = "[yellow]owes[/]" if progress.get("owes") else "[green]proven[/]"
        console.print(f"[dim]{step:11}[/] {mark:7}", end=" ")
        text = f"{proxy}  {progress.get('seconds', 0):.1f} s  {progress.get('seen', '')}".rstrip()
        console.print(text, markup=False, highlight=False)
        return
    console.print(f"[green]{step:11}[/]", end=" ")
    text = f"{progress.get('message', '')} ({progress.get('seconds', 0):.1f} s)"
    console.print(text, markup=False, highlight=False)


def print_timeline(report: RotationReport, url: str) -> None:
    """Print how a rotation ended; its steps were printed while it ran."""
    colour = "green" if report.state in (RotationState.DONE, RotationState.NOTHING_DUE) else "yellow"
    console.print(f"[{colour}]{report.state.value}[/]", end=" ")
    names = f"; owed by {', '.join(report.owing)}" if report.owing else ""
    console.print(f"{report.message}{names}", markup=False, highlight=False)
    console.print(f"flow run: {url}", style="dim")


def show_rotation(report: RotationReport, url: str) -> dict[str, Any]:
    """Return the JSON form of a rotation."""
    return {**report.to_json(), "owing": list(report.owing), "flowRun": url}
