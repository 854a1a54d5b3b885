"""Only a process that can be looked for from here is ever taken for dead: host names are no proof of where one is."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fake_kube import FakeKube

from konverge.errors import Busy
from konverge.kube.resources import LEASES
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate import claiming
from konverge.operate.claiming import claim_fleet, is_gone, name_process

FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))
BOOT = "/proc/sys/kernel/random/boot_id"


@pytest.fixture
async def ended() -> str:
    """The name of a process of this place that has ended."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    name = name_process(process.pid)
    process.kill()
    await asyncio.wait_for(process.wait(), 60)
    return name


@pytest.fixture
async def elsewhere(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """From here on the process is on another machine of the same host name."""
    reading = Path.read_text

    def read(self: Path, *args: str, **options: str) -> str:
        return "another boot\n" if str(self) == BOOT else reading(self, *args, **options)

    claiming._name_place.cache_clear()
    monkeypatch.setattr(Path, "read_text", read)
    yield
    claiming._name_place.cache_clear()


def put(kube: FakeKube, holder: str) -> None:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": 1000, "renewTime": "2030-01-01T00:00:00.000000Z"}
    kube.put(LEASES, {"metadata": {"name": "shop-sync"}, "spec": spec})


async def is_waited_for(holder: str) -> bool:
    kube = FakeKube()
    put(kube, holder)
    try:
        async with claim_fleet(kube, FLEET, within=0.0):
            return False
    except Busy:
        return str(kube.one(LEASES, "shop-sync")["spec"]["holderIdentity"]) == holder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "FIRST_LOOK", 0.2)


async def test_the_lease_of_a_process_that_ended_here_is_free(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "FIRST_LOOK", 30.0)
    assert is_gone(ended)
    assert not await is_waited_for(f"{ended}/0")


async def test_a_process_of_another_machine_with_the_same_name_is_waited_for(ended: str, elsewhere: None) -> None:
    assert ended.startswith(f"{socket.gethostname()}/"), "the host name is the same"
    assert not is_gone(ended)
    assert await is_waited_for(f"{ended}/0")


async def test_another_pid_namespace_is_another_place(ended: str, monkeypatch: pytest.MonkeyPatch) -> None:
    claiming._name_place.cache_clear()
    monkeypatch.setattr(Path, "readlink", lambda _self: Path("pid:[4026539999]"))
    try:
        assert not is_gone(ended)
    finally:
        claiming._name_place.cache_clear()


async def test_a_holder_that_says_no_place_is_waited_for() -> None:
    # As earlier versions wrote it: HOST/PID/STARTED, of a sync with /NUMBER behind it.
    for old in (f"{socket.gethostname()}/{2**22 + 1}/1", f"{socket.gethostname()}/{2**22 + 1}/1/0"):
        assert not is_gone(old)
        assert await is_waited_for(old)


def test_without_proc_nobody_is_at_this_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: Path) -> Path:
        raise FileNotFoundError

    claiming._name_place.cache_clear()
    monkeypatch.setattr(Path, "readlink", fail)
    try:
        first = name_process()
        assert not is_gone(first)
        claiming._name_place.cache_clear()
        assert name_process() != first, "another process has another random name"
    finally:
        claiming._name_place.cache_clear()


def test_the_living_are_not_gone_and_one_that_took_the_number_of_another_is_told_apart() -> None:
    name = name_process()
    assert not is_gone(name)
    assert not is_gone(f"{name}/3")
    place, _, _ = name.rpartition("/")
    assert place.rpartition("/")[2] == str(os.getpid())
    assert is_gone(f"{place}/1")
    for odd in ("", "/", "x", f"{place.rpartition('/')[0]}/x/1", secrets.token_hex(4)):
        assert not is_gone(odd)
