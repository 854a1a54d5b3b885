"""Keeps what an exec plugin of a kubeconfig handed out valid: a cloud login may last an hour, and a run longer.

The official package runs the plugin once, without a time limit, and goes on as nobody where it fails. Here it runs
again ahead of its ``expirationTimestamp``, beside the requests, and once after a 401.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import tempfile
import time
import weakref
from collections.abc import Callable

from kubernetes.aio.client.configuration import Configuration

from konverge.errors import Unavailable
from konverge.kube.authenticating_exec import Credential, Plugin, PluginFailed

log = logging.getLogger(__name__)

SIGN_IN_SECONDS = 180.0
"""How long the first run may take: a person may have to sign in (kubelogin waits that long for the browser)."""
RENEWAL_SECONDS = 30.0
"""How long a later run may take, as long as one request."""
LEAD_SECONDS = 60.0
"""A credential is renewed so long before it ends, or in the last fifth of its life where that is shorter."""
PAUSE_SECONDS = 5.0
"""Least time between two runs that brought nothing: a plugin without anything newer must not run for each request."""


class Login:
    """The credential of one client; the configuration that it writes to has the current one."""

    def __init__(self, plugin: Plugin, clock: Callable[[], float] = time.time) -> None:
        self.credential = Credential()
        self.failure = ""
        """Why the last run failed; "" where it did not."""
        self._plugin, self._clock = plugin, clock
        self._due = self._refused_at = -math.inf
        self._configuration: Configuration | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._file = ""

    async def sign_in(self) -> None:
        """Run the plugin for the first time; PluginFailed where it hands out nothing."""
        self._take(await self._plugin.run(SIGN_IN_SECONDS))

    def write_to(self, configuration: Configuration) -> None:
        """Write the credential into a configuration, now and after each renewal."""
        self._configuration = configuration
        if self.credential.token:
            configuration.api_key["BearerToken"] = f"Bearer {self.credential.token}"
        if self.credential.certificate:
            configuration.cert_file, configuration.key_file = self._store(), None

    async def keep_valid(self) -> None:
        """Renew what ends soon beside the caller, and wait where it has ended; Unavailable if there is none then."""
        now = self._clock()
        if now >= self._due:
            renewal = self._start()
            if now >= self.credential.expires:
                await asyncio.shield(renewal)
        if self.failure and self._clock() >= self.credential.expires:
            raise Unavailable(
                f"The credential for the Kubernetes API has ended, and there is no new one: {self.failure}",
                reason="TokenUnreadable",
                hint="reference/errors.md#bad-kubeconfig",
            )

    async def renew_refused(self, refused: Credential) -> bool:
        """Renew a credential that the server refused; tell whether there is another one to ask with."""
        under_way = self._renewal is not None and not self._renewal.done()
        if self.credential == refused and (under_way or abs(self._clock() - self._refused_at) >= PAUSE_SECONDS):
            self._refused_at = self._clock()
            await asyncio.shield(self._start())
            self._refused_at = self._clock()
        return self.credential != refused

    async def close(self) -> None:
        """End a run that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait({self._renewal})

    def _start(self) -> asyncio.Task[None]:
        """Return the one renewal that is under way; who stops waiting for it does not end it for the others."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
        return self._renewal

    async def _renew(self) -> None:
        try:
            self._take(await self._plugin.run(RENEWAL_SECONDS))
        except (PluginFailed, OSError) as error:
            self.failure = str(error)
            self._due = self._clock() + PAUSE_SECONDS
            log.warning("the credential for the Kubernetes API was not renewed: %s", error)

    def _take(self, credential: Credential) -> None:
        now = self._clock()
        left = credential.expires - now
        self._due = credential.expires - min(LEAD_SECONDS, left / 5) if left > 0 else now + PAUSE_SECONDS
        self.credential, self.failure = credential, ""
        if self._configuration is not None:
            self.write_to(self._configuration)

    def _store(self) -> str:
        """Write certificate and key to a file that only this user may read, since OpenSSL takes them from a file."""
        if not self._file:
            opened, self._file = tempfile.mkstemp(suffix=".pem")
            os.close(opened)
            weakref.finalize(self, _remove, self._file)
        with open(self._file, "w") as file:
            file.write(f"{self.credential.certificate}\n{self.credential.key}\n")
        return self._file


def _remove(path: str) -> None:
    if os.path.exists(path):
        os.remove(path)
