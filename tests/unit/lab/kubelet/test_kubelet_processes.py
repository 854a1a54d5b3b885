from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from konverge.lab.kubelet import tracking
from konverge.lab.kubelet.forking import ForkingLauncher
from konverge.lab.kubelet.images import HOST, Program
from konverge.lab.kubelet.piping import run_command, start_with_output
from konverge.lab.kubelet.processes import (
    DirectLauncher,
    Launch,
    Launcher,
    descendants,
    exit_code,
    kill_sessions,
    stat_fields,
)

ENV = {"PATH": os.environ["PATH"], "MARK": "m"}


@pytest.fixture(params=[ForkingLauncher, DirectLauncher])
async def launcher(request: pytest.FixtureRequest) -> AsyncIterator[Launcher]:
    found: Launcher = request.param()
    yield found
    await found.close()


def host(*words: str, tty: bool = False) -> Launch:
    return Launch(HOST, words, ENV, "/", tty)


def alive(pid: int) -> bool:
    fields = stat_fields(pid)
    return bool(fields) and fields[0] != "Z"


async def until_dead(*pids: int) -> None:
    # The kernel tells nobody but a parent of a death, so this is asked again and again.
    async with asyncio.timeout(10):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_commands_run_with_their_environment_only(launcher: Launcher) -> None:
    code, output = await run_command(launcher, host("sh", "-c", "echo $MARK; env | wc -l; pwd; exit 4"), 20)
    assert code == 4
    lines = output.decode().split()
    assert (lines[0], lines[2]) == ("m", "/")
    assert int(lines[1]) <= 6  # MARK, PATH and what a shell adds


async def test_a_missing_program_ends_with_127(launcher: Launcher) -> None:
    code, output = await run_command(launcher, host("no-such-program"), 20)
    assert code == 127
    assert b"no-such-program" in output


async def test_modules_and_functions_run_as_programs(launcher: Launcher) -> None:
    code, output = await run_command(launcher, Launch(Program("platform"), ("--terse",), ENV, "/"), 20)
    assert code == 0
    assert b"Linux" in output
    code, output = await run_command(launcher, Launch(Program("this_module_is_missing"), (), ENV, "/"), 20)
    assert code == 1
    assert b"this_module_is_missing" in output
    code, _ = await run_command(launcher, Launch(Program("os", "getcwd"), (), ENV, "/"), 20)
    assert code == 0


async def test_a_command_over_its_time_is_killed_with_its_children(launcher: Launcher, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! > {pids}; setsid sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; wait"
    with pytest.raises(TimeoutError):
        await run_command(launcher, host("sh", "-c", script), 0.5)
    first, other, leader = map(int, pids.read_text().split())
    await until_dead(first, other, leader)


async def test_signals_reach_the_first_process(launcher: Launcher) -> None:
    lines: list[bytes] = []
    ready = asyncio.Event()

    def take(_stream: str, data: bytes) -> None:
        lines.append(data)
        ready.set()

    process, readers = await start_with_output(launcher, host("sh", "-c", "echo up; exec sleep 600"), take)
    await asyncio.wait_for(ready.wait(), 20)
    process.signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 5) == -signal.SIGTERM
    assert exit_code(-signal.SIGTERM) == 143
    for reader in readers:
        await reader.ended.wait()
        reader.close()


async def test_closing_a_launcher_leaves_nothing(launcher: Launcher) -> None:
    process, readers = await start_with_output(launcher, host("sh", "-c", "sleep 600 & wait"), lambda *_: None)
    await launcher.close()
    assert await asyncio.wait_for(process.wait(), 5) == -9
    await until_dead(process.pid)
    for reader in readers:
        reader.close()


async def test_a_fork_server_that_dies_takes_its_children_and_is_replaced() -> None:
    launcher = ForkingLauncher()
    process, readers = await start_with_output(launcher, host("sh", "-c", "sleep 600 & wait"), lambda *_: None)
    assert launcher._server is not None
    os.kill(launcher._server.pid, signal.SIGKILL)
    assert await asyncio.wait_for(process.wait(), 5) == -9
    await until_dead(process.pid)
    assert await run_command(launcher, host("true"), 30) == (0, b"")
    await launcher.close()
    for reader in readers:
        reader.close()


PARENT = """
import asyncio, os, sys
from konverge.lab.kubelet.forking import ForkingLauncher
from konverge.lab.kubelet.images import HOST
from konverge.lab.kubelet.piping import start_with_output
from konverge.lab.kubelet.processes import Launch

async def main():
    launcher = ForkingLauncher()
    script = "sleep 601 & setsid sh -c 'sleep 602 & wait' & sleep 603"
    process, _ = await start_with_output(launcher, Launch(HOST, ("sh", "-c", script), dict(os.environ), "/"), print)
    print(launcher._server.pid, flush=True)
    await process.wait()

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_kubelet_whatever_sessions_it_made() -> None:
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    server = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    async with asyncio.timeout(10):
        # The shells need a moment for their children.
        while len(descendants(server)) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    family = [server, *descendants(server)]
    parent.kill()
    await parent.wait()
    await until_dead(*family)


async def test_orphans_are_killed_by_their_files_and_strangers_are_not(tmp_path: Path) -> None:
    ours = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    stranger = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    tracking.remember(tmp_path, "one", ours.pid)
    tracking.remember(tmp_path, "two", stranger.pid)
    (tmp_path / "two").write_text(f"{stranger.pid} 12345\n")  # the same number, another start
    (tmp_path / "three").write_text("garbage\n")
    assert tracking.kill_orphans(tmp_path) == [ours.pid]
    assert await asyncio.wait_for(ours.wait(), 5) == -9
    assert stranger.returncode is None
    assert not os.listdir(tmp_path)
    assert kill_sessions([stranger.pid]) == [stranger.pid]
    await stranger.wait()
