"""Runs an exec plugin of a kubeconfig and reads the credential that it prints (KEP-541, ``ExecCredential``)."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from kubernetes.aio.config.config_exception import ConfigException

KILL_SECONDS = 5.0
"""How long a killed plugin may take to be gone; a child of it that holds its output is not waited for."""
LONGEST_COMPLAINT = 500
"""Characters of a plugin's error output that are shown, from its end."""


class PluginFailed(ConfigException):  # type: ignore[misc]
    """The plugin hands out nothing; the message says why and shows nothing secret."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin hands out: a token, a client certificate with its key, or both; ``expires`` is Unix time."""

    token: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)
    expires: float = math.inf


@dataclass(frozen=True, slots=True)
class Plugin:
    """One ``users[].user.exec`` of a kubeconfig."""

    command: str
    version: str
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    interactive: bool = True
    """False where the plugin is never to have the terminal (``interactiveMode: Never``)."""

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Plugin:
        """Read the ``exec`` part of a user; PluginFailed where a field is missing or not what it must be."""
        try:
            return cls(
                str(document["command"]),
                str(document["apiVersion"]),
                tuple(str(argument) for argument in document.get("args") or ()),
                {str(variable["name"]): str(variable["value"]) for variable in document.get("env") or ()},
                document.get("interactiveMode") != "Never",
            )
        except (KeyError, TypeError) as error:
            raise PluginFailed(f"exec: the field {error} of the user is missing or malformed") from error

    async def run(self, within: float) -> Credential:
        """Run the plugin and return its credential; PluginFailed where it has none ``within`` so many seconds."""
        interactive = self.interactive and sys.stdin is not None and sys.stdin.isatty()
        try:
            process = await asyncio.create_subprocess_exec(
                self.command,
                *self.arguments,
                env={**os.environ, **self.variables, "KUBERNETES_EXEC_INFO": self._describe(interactive)},
                stdin=None if interactive else DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
            )
        except (OSError, ValueError) as error:
            raise PluginFailed(f"exec: {self.command} cannot be started: {error}") from error
        output, complaint = await self._wait(process, within)
        if process.returncode:
            shown = complaint.decode("utf-8", "replace").strip()[-LONGEST_COMPLAINT:]
            raise PluginFailed(f"exec: {self.command} ended with {process.returncode}: {' '.join(shown.split())}")
        return self._read(output)

    def _describe(self, interactive: bool) -> str:
        spec = {"interactive": interactive}
        return orjson.dumps({"apiVersion": self.version, "kind": "ExecCredential", "spec": spec}).decode()

    async def _wait(self, process: Process, within: float) -> tuple[bytes, bytes]:
        try:
            async with asyncio.timeout(within):
                return await process.communicate()
        except TimeoutError:
            raise PluginFailed(f"exec: {self.command} did not end within {within:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                with suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), KILL_SECONDS)

    def _read(self, output: bytes) -> Credential:
        """Read what was printed; no message shows any of it, since it is secret."""
        try:
            document = orjson.loads(output)
            version, status = document["apiVersion"], document["status"]
            credential = Credential(
                status.get("token") or "",
                status.get("clientCertificateData") or "",
                status.get("clientKeyData") or "",
                _read_time(status.get("expirationTimestamp")),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise PluginFailed(f"exec: what {self.command} printed is no ExecCredential") from None
        if version != self.version:
            raise PluginFailed(f"exec: {self.command} speaks {version}, and {self.version} is asked for")
        if bool(credential.certificate) != bool(credential.key):
            raise PluginFailed(f"exec: {self.command} printed only one of clientCertificateData and clientKeyData")
        if not credential.token and not credential.certificate:
            raise PluginFailed(f"exec: {self.command} printed neither token nor clientCertificateData")
        return credential


def _read_time(stamp: str | None) -> float:
    """Return Unix time of an RFC 3339 time; for ever without one."""
    if not stamp:
        return math.inf
    time = datetime.fromisoformat(stamp)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
