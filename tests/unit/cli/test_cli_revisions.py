"""history, rollback and drift as commands: what they print, what they exit with, what they refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import orjson
import pytest
from click.testing import Result
from typer.testing import CliRunner

from konverge.cli import drifting, rolling_back
from konverge.cli.history import describe_age
from konverge.cli.main import app
from konverge.cli.running import FlowResult
from konverge.errors import Unavailable
from konverge.kong.declarative import serialise
from konverge.kube.client import KubeClient
from konverge.kube.resources import EVENTS, PROXY_FLEETS
from konverge.model.revision import RevisionOutcome
from konverge.operate.drifting import audit_fleet, heal_drift
from konverge.operate.orchestrator import PrefectServer
from tests.unit.operate.drifting_town import KEY, LATER, NOW, Town, document

GOOD, HARMFUL = RevisionOutcome.GOOD, RevisionOutcome.HARMFUL


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Town:
    """Revision 1 is good, 2 is harmful, 3 is good and in force."""
    town = Town()

    async def build() -> None:
        for paths, outcome in ((("/a",), GOOD), (("/a", "/b"), HARMFUL), (("/a", "/c"), GOOD)):
            town.enforce(await town.store(serialise(document(*paths, key=KEY)), outcome))

    asyncio.run(build())

    async def connect(*_: Any) -> Any:
        return town.kube

    monkeypatch.setattr(KubeClient, "connect", connect)
    return town


class Flows:
    """Takes the place of Prefect: notes what is run."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, dict[str, Any]]] = []
        self.result: Any = {"revision": 1, "synced": 3, "total": 3}
        self.down = False

    async def find(self) -> PrefectServer:
        if self.down:
            raise Unavailable("nobody there", reason="PrefectUnreachable")
        return PrefectServer("http://ui/api")

    async def run(self, name: str, parameters: dict[str, Any], **_: Any) -> FlowResult:
        self.runs.append((name, parameters))
        return FlowResult(self.result, "http://ui/run")


@pytest.fixture
def flows(monkeypatch: pytest.MonkeyPatch) -> Flows:
    flows = Flows()
    monkeypatch.setattr(rolling_back, "run_flow", flows.run)
    monkeypatch.setattr(rolling_back, "ensure_server", flows.find)
    monkeypatch.setattr(drifting, "run_flow", flows.run)
    return flows


def call(*words: str, **options: Any) -> Result:
    result = CliRunner().invoke(app, [*words, "--fleet", "shop"], env={"COLUMNS": "160"}, **options)
    assert "Traceback" not in result.output
    assert KEY not in result.output
    return result


def call_json(*words: str) -> Any:
    return orjson.loads(call(*words, "-o", "json").stdout)


def pinned(town: Town) -> int:
    return int(town.kube.one(PROXY_FLEETS, "shop")["spec"].get("pinnedRevision", 0))


def test_history_tells_who_why_and_what_became_of_it(town: Town) -> None:
    lines = call("history").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:] if line[0] != " "] == ["3", "2", "1"]
    assert "current, last good" in lines[1]
    assert "Because: of it" in call("history").stdout
    shown = call_json("history")
    assert (shown["current"], shown["lastGood"], shown["pinned"]) == (3, 3, 0)
    assert [r["status"]["outcome"] for r in shown["revisions"]] == ["Good", "Harmful", "Good"]
    assert shown["revisions"][0]["reason"] == "added: route rc; removed: route rb"
    assert shown["revisions"][0]["marks"] == ["current", "last good"]


@pytest.mark.parametrize(
    ("words", "code", "pair", "entities"),
    [
        (("--diff", "3"), 2, (2, 3), {"route rb", "route rc"}),
        (("--diff", "3", "1"), 2, (1, 3), {"route rc"}),
        (("--diff", "2", "2"), 0, (2, 2), set()),
    ],
)
def test_history_compares_revisions(
    town: Town, words: tuple[str, ...], code: int, pair: tuple[int, int], entities: set[str]
) -> None:
    assert call("history", *words).exit_code == code
    shown = call_json("history", *words)
    assert (shown["from"], shown["to"]) == pair
    assert {d["entity"] for d in shown["differences"]} == entities


def test_the_first_revision_has_none_before_it(town: Town) -> None:
    result = call("history", "--diff", "1")
    assert result.exit_code == 1
    assert "RevisionNotFound" in result.stderr


def test_a_second_revision_needs_diff(town: Town) -> None:
    assert call("history", "2").exit_code == 2


@pytest.mark.parametrize(
    ("age", "shown"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d"), (-5, "0s")],
)
def test_an_age_is_in_the_largest_unit(age: int, shown: str) -> None:
    assert describe_age(NOW, NOW + timedelta(seconds=age)) == shown


def test_a_dry_run_shows_what_would_change_and_changes_nothing(town: Town, flows: Flows) -> None:
    result = call("rollback", "--dry-run")
    assert result.exit_code == 2
    assert "revision 3 -> 1" in result.stdout
    assert "- route rc" in result.stdout
    assert (pinned(town), flows.runs) == (0, [])
    assert call("rollback", "--to", "3", "--dry-run").exit_code == 0


def test_a_rollback_pins_pushes_and_tells(town: Town, flows: Flows) -> None:
    result = call("rollback", "--yes")
    assert result.exit_code == 0
    assert "3 of 3 proxies synced" in result.stdout
    assert pinned(town) == 1
    (name, parameters) = flows.runs[0]
    assert (name, parameters["revision"]) == ("config-sync", 1)
    assert parameters["author"].startswith("konverge rollback to 1 by ")
    assert [event["reason"] for event in town.kube.all(EVENTS)] == ["RevisionRolledBack"]


def test_a_harmful_revision_is_refused_with_3_unless_forced(town: Town, flows: Flows) -> None:
    result = call("rollback", "--to", "2", "--yes")
    assert result.exit_code == 3
    assert "HarmfulRevision" in result.stderr
    assert (pinned(town), flows.runs) == (0, [])
    assert call("rollback", "--to", "2", "--yes", "--force").exit_code == 0
    assert pinned(town) == 2


def test_without_a_server_nothing_is_pinned_or_released(town: Town, flows: Flows) -> None:
    flows.down = True
    assert call("rollback", "--yes").exit_code == 1
    assert pinned(town) == 0
    flows.down = False
    call("rollback", "--yes")
    flows.down = True
    assert call("rollback", "--release", "--yes").exit_code == 1
    assert pinned(town) == 1


def test_a_paused_fleet_is_refused_with_3(town: Town, flows: Flows) -> None:
    town.kube.one(PROXY_FLEETS, "shop")["spec"]["paused"] = True
    assert call("rollback", "--yes").exit_code == 3
    assert flows.runs == []


@pytest.mark.parametrize("words", [(), ("-o", "json")])
def test_where_nobody_can_be_asked_nothing_is_done(town: Town, flows: Flows, words: tuple[str, ...]) -> None:
    result = call("rollback", *words)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert (pinned(town), flows.runs) == (0, [])


def test_released_it_follows_the_sources_again(town: Town, flows: Flows) -> None:
    call("rollback", "--yes")
    assert call("rollback", "--release", "--dry-run").exit_code == 2
    result = call("rollback", "--release", "--yes")
    assert result.exit_code == 0
    assert pinned(town) == 0
    assert "revision" not in flows.runs[-1][1]
    assert call("rollback", "--release", "--dry-run").exit_code == 0
    assert "no revision is pinned" in call("rollback", "--release").stdout
    assert len(flows.runs) == 2


@pytest.mark.parametrize("words", [("--to", "1"), ("--force",)])
def test_a_release_has_no_target(town: Town, words: tuple[str, ...]) -> None:
    assert call("rollback", "--release", *words).exit_code == 2


@pytest.fixture
def audited(town: Town, monkeypatch: pytest.MonkeyPatch) -> Town:
    @asynccontextmanager
    async def open_gateways(*_: Any) -> AsyncIterator[Any]:
        yield town.gateways

    @asynccontextmanager
    async def open_reader(*_: Any) -> AsyncIterator[Any]:
        yield town.read_entities

    async def audit(*given: Any) -> Any:
        return await audit_fleet(*given, clock=lambda: LATER, second_look=0.0)

    monkeypatch.setattr(drifting, "open_gateways", open_gateways)
    monkeypatch.setattr(drifting, "open_reader", open_reader)
    monkeypatch.setattr(drifting, "audit_fleet", audit)
    return town


def test_drift_names_proxies_and_entities_and_exits_2(audited: Town, flows: Flows) -> None:
    assert call("drift").exit_code == 0
    audited.post_by_hand("p1", document("/a", "/evil", key="another-secret"))
    result = call("drift")
    assert result.exit_code == 2
    assert "1 of 3 proxies drifted" in result.stdout
    assert "  + route revil" in result.stdout
    assert "  - route rc" in result.stdout
    assert "another-secret" not in result.output
    shown = call_json("drift")
    assert (shown["drifted"], shown["revision"]) == (True, 3)
    assert (audited.gateways.proxies["p1"].pushes, flows.runs) == (0, [])


def test_healing_is_a_flow_and_its_report_is_shown(audited: Town, flows: Flows) -> None:
    audited.post_by_hand("p1", document("/x"))

    async def prepare() -> None:
        fleet = await audited.fleet()
        report = await audit_fleet(
            audited.kube, fleet, audited.gateways, audited.read_entities, clock=lambda: LATER, second_look=0.0
        )
        healed = await heal_drift(audited.kube, fleet, audited.gateways, report)
        flows.result = healed.to_json()

    asyncio.run(prepare())
    result = call("drift", "--heal")
    assert result.exit_code == 2
    assert "brought back" in result.stdout
    assert flows.runs[0][0] == "drift-audit"
    assert flows.runs[0][1]["healing"] is True


def test_a_fleet_that_was_never_synced_says_so(audited: Town) -> None:
    audited.kube.one(PROXY_FLEETS, "shop")["status"] = {}
    result = call("drift")
    assert result.exit_code == 0
    assert "nothing was synced yet" in result.stdout
