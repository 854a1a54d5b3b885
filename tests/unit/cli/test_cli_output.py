"""Failures leave the command as one triple, an exit code that says what kind they are, and no traceback."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import orjson
import pytest
import typer
from typer.testing import CliRunner

import konverge.errors as tree
from konverge.cli.controlling import parse_listen
from konverge.cli.main import app
from konverge.cli.options import build_target
from konverge.cli.output import FAILED, REFUSED, USAGE, Format, exit_code_of, fail, run_async
from konverge.cli.showing import describe_remaining
from konverge.errors import CheckRefused, Conflict, Invalid, KonvergeError, Unavailable, UsageError

KINDS = [k for k in vars(tree).values() if isinstance(k, type) and issubclass(k, KonvergeError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_kind_of_failure_has_its_exit_code(kind: type[KonvergeError]) -> None:
    expected = {UsageError: USAGE, CheckRefused: REFUSED}.get(kind, FAILED)
    assert exit_code_of(kind("x")) == expected


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_a_failure_is_one_message_with_a_hint(kind: type[KonvergeError], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(kind("Service [shop]/web is off", reason="WhyNot", hint="reference/errors.md#why"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "WhyNot: Service [shop]/web is off\n  see docs/reference/errors.md#why\n"


def test_a_failure_in_json_is_an_object_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail(Invalid('quotes " and \n newline', reason="Off"), Format.JSON)
    shown = orjson.loads(capsys.readouterr().out)
    assert shown == {
        "error": {"reason": "Off", "message": 'quotes " and \n newline', "hint": "docs/reference/errors.md#invalid"}
    }


def exit_of(work: Any) -> int:
    with pytest.raises(typer.Exit) as caught:
        run_async(work)
    return int(caught.value.exit_code)


async def raise_(error: BaseException) -> None:
    raise error


def test_a_failure_inside_groups_is_the_one_that_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("a", [ExceptionGroup("b", [CheckRefused("no", reason="Paused")]), ValueError("noise")])
    assert exit_of(raise_(group)) == REFUSED
    assert "Paused: no" in capsys.readouterr().err


def test_a_group_without_a_failure_of_ours_is_a_bug_and_stays_one() -> None:
    with pytest.raises(ExceptionGroup):
        run_async(raise_(ExceptionGroup("a", [ValueError("bug")])))


def test_an_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_of(raise_(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_result_is_handed_on() -> None:
    assert run_async(asyncio.sleep(0, "x")) == "x"


@pytest.mark.parametrize("error", [Unavailable("x", delay=3.0), Conflict("y")])
def test_a_retryable_failure_is_a_failure_for_the_caller(error: KonvergeError) -> None:
    assert exit_code_of(error) == FAILED


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:10254", (["127.0.0.1"], 10254)),
        (":8080", (["0.0.0.0"], 8080)),
        ("localhost:0", (["localhost"], 0)),
    ],
)
def test_listen_is_host_and_port(listen: str, expected: tuple[list[str], int]) -> None:
    assert parse_listen(listen) == expected


@pytest.mark.parametrize("listen", ["", "nonsense", "host:", "host:port", "host:65536", "host:-1", "h:8²", "1:2:3x"])
def test_listen_of_another_shape_is_named(listen: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"--listen {listen!r}")):
        parse_listen(listen)


def test_a_target_has_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_target("shop", "ns", "conf", None).kubeconfig == str(tmp_path / "conf")
    assert build_target("shop", "ns", None, "ctx").kubeconfig is None


@pytest.mark.parametrize("name", ["", "x" * 51])
def test_a_name_that_no_fleet_can_have_is_wrong_words(name: str) -> None:
    result = CliRunner().invoke(app, ["sync", "--fleet", name])
    assert result.exit_code == USAGE
    assert "is no name of a fleet" in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.output


NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("left", "shown"),
    [
        (timedelta(days=90), "90d"),
        (timedelta(hours=48), "2d"),
        (timedelta(hours=47), "47h"),
        (timedelta(minutes=50), "1h"),
        (timedelta(0), "[red]expired[/]"),
        (timedelta(days=-3), "[red]expired[/]"),
    ],
)
def test_a_remaining_time_is_in_the_largest_unit(left: timedelta, shown: str) -> None:
    assert describe_remaining(NOW + left, NOW) == shown


def test_no_certificate_is_none() -> None:
    assert describe_remaining(None, NOW) == "[red]none[/]"


def commands(group: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command below a group."""
    found = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += commands(command, (*path, name))
        elif not command.hidden:
            found.append((*path, name))
    return found


COMMANDS = commands(typer.main.get_command(app))


def test_there_are_commands() -> None:
    assert {("status",), ("migrate", "run"), ("certs", "rotate"), ("lab", "demo")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example_and_fits(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    text = click.unstyle(result.output)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert re.search(r"\bExamples?:|\bkonverge " + " ".join(words), text), text


@pytest.mark.parametrize("words", [("nonsense",), ("status", "--nonsense"), ("sync",), ("sync", "--fleet")])
def test_wrong_words_are_exit_code_2(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(words), env={"KONVERGE_FLEET": ""})
    assert result.exit_code == USAGE
    assert result.stdout == ""
    assert "Traceback" not in result.output
