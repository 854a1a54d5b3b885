"""konverge drift on a fleet with a database: entities by name, exit code 2, nothing written, nothing secret."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from konverge.cli import drifting
from konverge.cli.main import app
from konverge.kube.client import KubeClient
from konverge.operate.drifting import audit_fleet
from tests.unit.operate.drifting_town import KEY, LATER
from tests.unit.operate.test_operate_drifting_databases import THEIRS, DatabaseTown, change_by_hand


@pytest.fixture
def town(monkeypatch: pytest.MonkeyPatch) -> Iterator[DatabaseTown]:
    opened = asyncio.run(DatabaseTown().open())

    async def connect(*_: Any) -> Any:
        return opened.kube

    @asynccontextmanager
    async def give(what: Any) -> AsyncIterator[Any]:
        yield what

    async def audit(*given: Any) -> Any:
        return await audit_fleet(*given, clock=lambda: LATER, second_look=0.0)

    monkeypatch.setattr(KubeClient, "connect", connect)
    monkeypatch.setattr(drifting, "open_gateways", lambda *_: give(opened.nodes))
    monkeypatch.setattr(drifting, "open_reader", lambda *_: give(opened.read_entities))
    monkeypatch.setattr(drifting, "audit_fleet", audit)
    yield opened
    opened.kong.close()


def call(*words: str) -> Any:
    return CliRunner().invoke(app, ["drift", "--fleet", "shop", *words])


def test_a_database_is_compared_and_nothing_is_written(town: DatabaseTown) -> None:
    assert call().exit_code == 0
    asyncio.run(change_by_hand(town))
    writes = len(town.kong.writes)
    result = call()
    assert result.exit_code == 2, result.output
    assert "3 of 3 proxies drifted" in result.stdout
    for line in ("  + route by-hand", "  - route rb", "  ~ route ra: paths is [/elsewhere], should be [/a]"):
        assert line in result.stdout
    shown = call("-o", "json")
    assert shown.exit_code == 2
    report = orjson.loads(shown.stdout)
    assert (report["drifted"], report["revision"], len(report["proxies"][0]["differences"])) == (True, 2, 4)
    assert len(town.kong.writes) == writes
    for output in (result.output, shown.output):
        assert KEY not in output
        assert THEIRS not in output
