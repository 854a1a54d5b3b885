"""When a login runs its plugin: ahead of the end, beside the requests, not for each of them, and never for ever."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException

from konverge.errors import Unavailable
from konverge.kube.authenticating import LEAD_SECONDS, PAUSE_SECONDS, Login
from konverge.kube.authenticating_exec import Credential, Plugin, PluginFailed

VERSION = "client.authentication.k8s.io/v1"
HOUR = 3600.0


class Scripted:
    """A plugin that hands out the next of its answers once it may; the last one stays."""

    def __init__(self, *answers: Credential | PluginFailed) -> None:
        self.answers, self.runs, self.ended = list(answers), 0, 0
        self.may = asyncio.Event()
        self.may.set()

    async def run(self, within: float) -> Credential:
        assert within > 0
        self.runs += 1
        try:
            await self.may.wait()
        finally:
            self.ended += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, PluginFailed):
            raise answer
        return answer


class Clock:
    """Unix time that stands still."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


def until(seconds: float, token: str) -> Credential:
    return Credential(token=token, expires=1e9 + seconds)


async def sign_in(*answers: Credential | PluginFailed) -> tuple[Login, Any, Clock, Configuration]:
    plugin, clock, configuration = Scripted(*answers), Clock(), Configuration()
    login = Login(plugin, clock)  # type: ignore[arg-type]
    await login.sign_in()
    login.write_to(configuration)
    return login, plugin, clock, configuration


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_what_ends_soon_is_renewed_beside_the_requests() -> None:
    login, plugin, clock, configuration = await sign_in(until(HOUR, "a"), until(2 * HOUR, "b"))
    clock.now += HOUR - LEAD_SECONDS - 1
    await login.keep_valid()
    await settle()
    assert plugin.runs == 1
    clock.now += 1
    plugin.may.clear()
    await login.keep_valid()
    await login.keep_valid()
    await settle()
    assert plugin.runs == 2
    assert configuration.api_key["BearerToken"] == "Bearer a", "nobody waits while it is valid"
    plugin.may.set()
    await settle()
    assert configuration.api_key["BearerToken"] == "Bearer b"
    await login.keep_valid()
    await settle()
    assert plugin.runs == 2


async def test_what_has_ended_is_waited_for_and_who_stops_waiting_does_not_end_it() -> None:
    login, plugin, clock, configuration = await sign_in(until(HOUR, "a"), until(2 * HOUR, "b"))
    clock.now += HOUR
    plugin.may.clear()
    impatient, patient = (asyncio.create_task(login.keep_valid()) for _ in range(2))
    await settle()
    assert not patient.done()
    impatient.cancel()
    await settle()
    assert impatient.cancelled()
    assert (plugin.runs, plugin.ended) == (2, 1)
    plugin.may.set()
    await asyncio.wait_for(patient, 30)
    assert configuration.api_key["BearerToken"] == "Bearer b"


async def test_a_renewal_that_fails_hurts_nobody_until_the_end_and_is_tried_again() -> None:
    login, plugin, clock, configuration = await sign_in(until(HOUR, "a"), PluginFailed("exec: no network"))
    clock.now += HOUR - 30
    await login.keep_valid()
    await settle()
    assert plugin.runs == 2
    await login.keep_valid()
    await settle()
    assert plugin.runs == 2, "not for each request"
    clock.now += 30
    with pytest.raises(Unavailable, match="no network") as caught:
        await login.keep_valid()
    assert (caught.value.reason, plugin.runs) == ("TokenUnreadable", 3)
    with pytest.raises(Unavailable):
        await login.keep_valid()
    assert plugin.runs == 3
    plugin.answers = [until(2 * HOUR, "b")]
    clock.now += PAUSE_SECONDS
    await login.keep_valid()
    assert configuration.api_key["BearerToken"] == "Bearer b"
    assert login.failure == ""


async def test_a_plugin_with_nothing_newer_does_not_run_for_each_request() -> None:
    login, plugin, clock, _ = await sign_in(until(HOUR, "a"))
    clock.now += HOUR + 1
    for _ in range(50):
        await login.keep_valid()
    assert plugin.runs == 2
    assert not await login.renew_refused(login.credential)
    assert not await login.renew_refused(login.credential)
    assert plugin.runs == 3


async def test_a_short_life_is_not_all_renewal() -> None:
    login, plugin, clock, _ = await sign_in(until(10, "a"), until(20, "b"))
    clock.now += 7
    await login.keep_valid()
    await settle()
    assert plugin.runs == 1
    clock.now += 1
    await login.keep_valid()
    await settle()
    assert plugin.runs == 2


async def test_a_run_that_is_under_way_ends_with_the_client() -> None:
    login, plugin, clock, _ = await sign_in(until(HOUR, "a"))
    clock.now += HOUR - 1
    plugin.may.clear()
    await login.keep_valid()
    await settle()
    assert (plugin.runs, plugin.ended) == (2, 1)
    await asyncio.wait_for(login.close(), 30)
    assert plugin.ended == 2


def kept(configuration: Configuration) -> tuple[str, int]:
    """Return what is in the file for OpenSSL, and its mode."""
    path = Path(configuration.cert_file)
    return path.read_text(), path.stat().st_mode & 0o777


def plugin_of(program: str, **more: Any) -> Plugin:
    return Plugin.parse({"command": sys.executable, "apiVersion": VERSION, "args": ["-I", "-c", program], **more})


async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    limit = 0.5
    while True:
        with pytest.raises(PluginFailed, match="did not end within"):
            await plugin_of(program).run(limit)
        if pid.exists() and pid.read_text():
            break
        limit *= 2  # the machine is too busy to start a process in that time
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_a_plugin_runs_beside_the_loop_and_may_complain_at_length() -> None:
    answer = json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": {"token": "t"}})
    program = f"import sys; sys.stderr.write('x' * 300_000); sys.stderr.flush(); sys.stdin.read(); print({answer!r})"
    running, turns = asyncio.create_task(plugin_of(program, interactiveMode="Never").run(60)), 0
    while not running.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert (await running).token == "t"
    assert turns > 1, "the loop went on"


@pytest.mark.parametrize(
    ("status", "version", "message"),
    [
        ({"token": "s3cret"}, "client.authentication.k8s.io/v1beta1", "speaks client.authentication.k8s.io/v1beta1"),
        ({}, VERSION, "neither token nor clientCertificateData"),
        ({"token": "s3cret", "clientKeyData": "s3cret"}, VERSION, "only one of"),
        ({"token": "s3cret", "expirationTimestamp": "tomorrow"}, VERSION, "no ExecCredential"),
        ("s3cret", VERSION, "no ExecCredential"),
    ],
)
async def test_what_is_no_credential_is_told_without_showing_it(status: Any, version: str, message: str) -> None:
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status})
    with pytest.raises(PluginFailed, match=message) as caught:
        await plugin_of(f"print({answer!r})").run(60)
    assert "s3cret" not in f"{caught.value!r}{caught.value}"


async def test_a_plugin_that_fails_or_is_not_there_says_why() -> None:
    with pytest.raises(PluginFailed, match=r"ended with 3: log in first$"):
        await plugin_of("import sys; sys.stderr.write('log in\\n first\\n'); sys.exit(3)").run(60)
    with pytest.raises(PluginFailed, match="cannot be started"):
        await Plugin("/nowhere/at-all", VERSION).run(60)
    with pytest.raises(ConfigException, match="command"):
        Plugin.parse({"apiVersion": VERSION})


async def test_both_a_token_and_a_certificate_are_taken_and_shown_to_nobody() -> None:
    status = {"token": "s3cret", "clientCertificateData": "C", "clientKeyData": "s3cret"}
    status["expirationTimestamp"] = "2033-05-18T03:33:20Z"
    answer = json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status})
    credential = await plugin_of(f"print({answer!r})").run(60)
    assert credential == Credential("s3cret", "C", "s3cret", 2e9)
    assert "s3cret" not in repr(credential)
    configuration = Configuration()
    login = Login(Scripted(credential), time.time)  # type: ignore[arg-type]
    await login.sign_in()
    login.write_to(configuration)
    assert kept(configuration) == ("C\ns3cret\n", 0o600)
    del login
    with pytest.raises(FileNotFoundError):
        kept(configuration)
