"""``konverge lab load`` as a command: table, JSON, exit codes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest
import typer
from typer.testing import CliRunner

from konverge.lab.load.cli import load

pytestmark = pytest.mark.lab
app = typer.Typer()
app.command()(load)


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status = 200 if self.headers["Host"] == "a.test" else 404
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/x"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["--duration", "0.3", "--rate", "50", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_json_is_the_report_and_nothing_else(url: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, out, _ = run("--target", url, "--host-header", "a.test", "-o", "json", "--report", str(file))
    report = orjson.loads(out)
    assert (code, report["requests"]["failed"]) == (0, 0)
    assert report["requests"]["total"] >= 14
    assert orjson.loads(file.read_bytes()) == report


def test_failures_are_shown_and_give_exit_code_1(url: str) -> None:
    code, out, _ = run("--target", url)
    assert code == 1
    assert "bad_status_404" in out
    code, _, _ = run("--target", url, "--expect", "404")
    assert code == 0


def test_a_plan_file_takes_the_place_of_the_flags(url: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    base = url.removesuffix("/x")
    target = {"name": "t", "host": "a.test"}
    classes = [{"name": "c", "kind": "fresh", "targets": [target]}]
    plan.write_bytes(orjson.dumps({"base_url": base, "rate": 50, "classes": classes}))
    code, out, _ = run("--plan", str(plan), "-o", "json")
    assert (code, list(orjson.loads(out)["requests"]["by_class"])) == (0, ["c"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "--target"), (("--target", "x"), "--target"), (("--plan", "/nowhere.json"), "--plan")],
)
def test_words_that_are_off_give_exit_code_2(arguments: tuple[str, ...], said: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_closed_port_is_counted_not_raised() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        code, out, _ = run("--target", f"http://127.0.0.1:{free.getsockname()[1]}/", "-o", "json")
    assert code == 1
    assert set(orjson.loads(out)["requests"]["by_kind"]) == {"connect_refused"}
