"""Starts etcd, kube-apiserver and kube-controller-manager, and waits until they answer.

There is no kubelet, no scheduler and no kube-proxy: Pods stay Pending until the lab's kubelet, or a test,
takes them. RBAC is on. etcd speaks on a unix socket in the plane's own directory and does not sync to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes.aio.client.configuration import Configuration

from konverge.errors import Unavailable
from konverge.kube.client import KubeClient, wait_until_reachable
from konverge.kube.resources import CONFIG_MAPS, SERVICE_ACCOUNTS
from konverge.lab.realplane.assets import API_SERVER, CONTROLLERS, ETCD, Assets, require_assets
from konverge.lab.realplane.credentials import prepare_credentials
from konverge.lab.realplane.files import Files
from konverge.lab.realplane.flags import (
    Addresses,
    build_api_server_flags,
    build_controllers_flags,
    build_etcd_flags,
)
from konverge.lab.realplane.processes import Program, race

READY_TIMEOUT = 90.0
"""Seconds; an idle machine needs about five."""
POLL_INTERVAL = 0.05


@dataclass(frozen=True, slots=True)
class PlaneSettings:
    """How to start a control plane.

    ``directory`` None means a temporary one, removed at the end. ``port`` 0 means a free one. With a ``bind``
    address outside 127.0.0.0/8 the Service ``default/kubernetes`` gets it as its endpoint. ``assets`` None
    means KUBEBUILDER_ASSETS or the cache. Times are in seconds.
    """

    directory: Path | None = None
    bind: str = "127.0.0.1"
    port: int = 0
    service_cidr: str = "10.96.0.0/16"
    cluster_cidr: str = "10.244.0.0/16"
    assets: Assets | None = None
    ready_timeout: float = READY_TIMEOUT


class RealControlPlane:
    """A real Kubernetes API; an async context manager, ready inside the block.

    Raises CheckRefused (reason KubeAssetsMissing) without the programs, Unavailable (ControlPlaneFailed)
    where one of them ends or does not answer in time.
    """

    def __init__(self, settings: PlaneSettings | None = None) -> None:
        self.settings = settings or PlaneSettings()
        assets = self.settings.assets or require_assets()
        chosen = self.settings.directory or Path(tempfile.mkdtemp(prefix="konverge-plane-"))
        self.directory = chosen.absolute()
        self.files = files = Files(self.directory)
        self.addresses = addresses = _choose_addresses(self.settings)
        self.server = f"https://{addresses.bind}:{addresses.port}"
        programs = {name: str(path.absolute()) for name, path in assets.programs.items()}
        self.etcd = Program([programs[ETCD], *build_etcd_flags()], self.directory)
        self.api_server = Program([programs[API_SERVER], *build_api_server_flags(files, addresses)], self.directory)
        self.controllers = Program(
            [programs[CONTROLLERS], *build_controllers_flags(files, addresses)], self.directory
        )

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of an administrator."""
        return self.files.kubeconfig

    def client(self) -> KubeClient:
        """Return an administrator's client; use it as an async context manager."""
        configuration = Configuration()
        configuration.host = self.server
        configuration.ssl_ca_cert = str(self.files.path("ca.crt"))
        configuration.cert_file = str(self.files.path("admin.crt"))
        configuration.key_file = str(self.files.path("admin.key"))
        return KubeClient(configuration)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Make the credentials, start the programs and wait until the default namespace is usable."""
        hosts = [self.addresses.bind, "127.0.0.1", self.addresses.first_service]
        await asyncio.to_thread(prepare_credentials, self.directory, self.server, hosts)
        await self.etcd.start()
        await self.api_server.start()
        async with self.client() as client:
            await self._wait_for_api(client)
            await self.controllers.start()
            await self._await(_wait_for_controllers(client), self.controllers, self.api_server)

    async def stop(self) -> None:
        """End the programs, clients before servers, and remove a temporary directory."""
        for program in (self.controllers, self.api_server, self.etcd):
            await program.stop()
        if self.settings.directory is None:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def restart_api_server(self) -> None:
        """Kill the API server as a crash does, start it again and wait until it answers."""
        await self.api_server.kill()
        await self.api_server.start()
        async with self.client() as client:
            await self._wait_for_api(client)

    async def watch(self) -> None:
        """Wait until one of the programs ends by itself, then raise Unavailable."""
        await race(asyncio.Event().wait(), self.etcd, self.api_server, self.controllers)

    async def _wait_for_api(self, client: KubeClient) -> None:
        ready = wait_until_reachable(client, self.settings.ready_timeout)
        await self._await(ready, self.etcd, self.api_server)

    async def _await(self, ready: Coroutine[Any, Any, None], *programs: Program) -> None:
        try:
            async with asyncio.timeout(self.settings.ready_timeout):
                await race(ready, *programs)
        except TimeoutError as error:
            names = ", ".join(program.name for program in programs)
            raise Unavailable(
                f"{names} did not become ready in {self.settings.ready_timeout:g} s (logs: {self.directory})",
                reason="ControlPlaneFailed",
                hint="howto/real-control-plane.md#when-it-does-not-start",
            ) from error


async def _wait_for_controllers(client: KubeClient) -> None:
    """Return once the controllers have furnished the default namespace, so that Pods are admitted."""
    wanted = ((SERVICE_ACCOUNTS, "default"), (CONFIG_MAPS, "kube-root-ca.crt"))
    for resource, name in wanted:
        while True:
            if await client.find(resource, name, "default") is not None:
                break
            await asyncio.sleep(POLL_INTERVAL)


def _choose_addresses(settings: PlaneSettings) -> Addresses:
    port = settings.port or _pick_port(settings.bind)
    return Addresses(settings.bind, port, settings.service_cidr, settings.cluster_cidr)


def _pick_port(address: str) -> int:
    """Return a port that is free now; kube-apiserver cannot listen on port 0."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind((address, 0))
        return int(listener.getsockname()[1])
