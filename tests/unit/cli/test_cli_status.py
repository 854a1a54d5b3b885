"""A fleet in a terminal: it fits 80 columns at any size, the sick ones first, nothing of the cluster is markup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from konverge.cli.showing import SHOWN, choose_rows, describe_age, describe_plainly, draw_fleets
from konverge.decide.assessing import State, assess_status
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Mtls, Phase, ProxyStatus

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def healthy(**changes: Any) -> ProxyStatus:
    status = ProxyStatus(
        node="node-1",
        ip="10.0.0.1",
        version="3.9.1",
        phase=Phase.SERVING,
        desired_revision=12,
        desired_hash="d" * 32,
        loaded_revision=12,
        loaded_hash="d" * 32,
        synced=True,
        traffic_ready=True,
        last_push=NOW - timedelta(minutes=7),
        reason="Configured",
        mtls=Mtls(subject="CN=shop", expires=NOW + timedelta(days=20)),
    )
    return status.model_copy(update=changes)


def sick(message: str = "refused") -> ProxyStatus:
    return healthy(
        phase=Phase.QUARANTINED,
        synced=False,
        traffic_ready=False,
        loaded_revision=None,
        reason="ProxyUnreachable",
        message=message,
        hint="reference/proxy-reasons.md#proxy-unreachable",
    )


def draw(
    proxies: dict[str, ProxyStatus], *, width: int = 80, wide: bool = False, everything: bool = False, **spec: Any
) -> str:
    fleet_spec = FleetSpec(proxy_service="s").replace(**spec)
    status = FleetStatus(current_revision=12, last_good_revision=11, last_sync=NOW - timedelta(seconds=50))
    status = assess_status(fleet_spec, status, proxies, NOW)
    fleet = Fleet(name="shop", namespace="gateways", spec=fleet_spec, status=status)
    out = StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(draw_fleets([(fleet, proxies)], NOW, wide=wide, everything=everything))
    return out.getvalue()


def name_of(number: int) -> str:
    return f"shop-gateway-7d9f4cbb9-{number:05d}"


def test_the_head_says_which_revision_and_how_many() -> None:
    text = draw({"a": healthy(), "b": sick()})
    assert "gateways/shop  revision 12 (last good 11), 1 of 2 up to date, 1 serving, synced" in text


def test_a_sick_proxy_says_why_and_where_to_read_on() -> None:
    text = draw({"a": healthy(), "b": sick("the Admin API does not answer")})
    rows = [line for line in text.splitlines() if line.startswith(("Quarantined ", "Serving "))]
    assert [row.split()[-1] for row in rows] == ["b", "a"]
    assert "ProxyUnreachable: the Admin API does not answer" in " ".join(text.split())
    assert "see docs/reference/proxy-reasons.md#proxy-unreachable" in text
    assert "7m" in rows[1]
    assert "20d" in rows[1]


@pytest.mark.parametrize("size", [0, 1, 30, 300])
def test_it_fits_eighty_columns_and_a_screen(size: int) -> None:
    proxies = {
        name_of(n): sick("m" * 300 if n == 4 else "refused") if n % 60 == 4 else healthy() for n in range(size)
    }
    text = draw(proxies, paused=True, pinned_revision=9)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert len(text.splitlines()) < 80
    for name, status in proxies.items():
        if not status.synced:
            assert name in text.replace("\n", ""), "a name is never cut"


def test_a_large_fleet_is_summed_up_unless_all_are_asked_for() -> None:
    proxies = {name_of(n): healthy() for n in range(300)} | {"x": sick()}
    assert f"and {301 - SHOWN} Serving (--all shows them)" in draw(proxies)
    everything = draw(proxies, everything=True)
    assert name_of(299) in everything
    assert "--all" not in everything


def test_every_sick_one_is_shown_however_many() -> None:
    states = {f"p{n}": State.QUARANTINED for n in range(50)} | {"ok": State.SERVING}
    assert len(choose_rows(states, SHOWN)) == 50


def test_pinned_paused_drift_and_expiry_are_told() -> None:
    proxies = {"a": healthy(loaded_hash="e" * 32, synced=False), "b": healthy(mtls=Mtls(expires=NOW))}
    text = " ".join(draw(proxies, paused=True, pinned_revision=7).split())
    for part in ("paused", "pinned to revision 7", "ProxiesDrifted", "CertificateExpired", "Outdated", "12 of 12"):
        assert part in text


def test_what_the_cluster_says_is_no_markup() -> None:
    text = draw({"a": sick("[bold]x[/] [/nonsense] [link=http://x]y[/link]")}, width=200)
    assert "[bold]x[/] [/nonsense] [link=http://x]y[/link]" in text


def test_wide_has_node_address_version_hash_and_identity() -> None:
    text = draw({"a": healthy()}, wide=True, width=200)
    for part in ("node-1", "10.0.0.1", "3.9.1", "dddddddddddd", "CN=shop"):
        assert part in text


def test_a_document_has_everything() -> None:
    fleet = Fleet(name="shop", namespace="ns", spec=FleetSpec(proxy_service="s", pinned_revision=3))
    (document,) = describe_plainly([(fleet, {"b": sick(), "a": healthy()})])
    assert (document["pinnedRevision"], list(document["proxies"])) == (3, ["a", "b"])
    assert document["proxies"]["b"]["hint"] == "reference/proxy-reasons.md#proxy-unreachable"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "120m"), (7200, "2h"), (172800, "2d"), (-9, "0s")],
)
def test_an_age_is_in_the_largest_fitting_unit(seconds: int, shown: str) -> None:
    assert describe_age(NOW - timedelta(seconds=seconds), NOW, short=True) == shown
    assert describe_age(None, NOW) == "never"
