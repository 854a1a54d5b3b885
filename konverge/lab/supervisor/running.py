"""A running lab, for tests and for the demo::

    async with Lab.start(LabSettings(name="demo", legacy=3, sample=True)) as lab:
        await lab.wait_ready()
        address = await lab.address_of("legacy-kong-proxy", "kong")

The process that enters the block is the supervisor: when it ends, in whatever way, the lab ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from konverge.errors import CheckRefused, KonvergeError, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import SERVICES
from konverge.lab.addressing import LabNetwork, claim_number
from konverge.lab.balancer.faults import Fault, Faults
from konverge.lab.supervisor.balancing import ask_balancer
from konverge.lab.supervisor.cleaning import prepare_place, remove_files
from konverge.lab.supervisor.components import Blueprint
from konverge.lab.supervisor.exporting import export_kubeconfig
from konverge.lab.supervisor.furnishing import furnish
from konverge.lab.supervisor.locating import find_address
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.states import ComponentState, LabState, holding, write_state
from konverge.lab.supervisor.supervising import Report, Supervisor
from konverge.lab.supervisor.waiting import (
    wait_for_deployment,
    wait_for_deployments,
)

POLL_SECONDS = 0.02


def _say_nothing(_what: str, _how: str) -> None:
    return


class Lab:
    """One lab, seen from the process that supervises it."""

    def __init__(self, settings: LabSettings, supervisor: Supervisor, state: LabState) -> None:
        self.settings = settings
        self.state = state
        self._supervisor = supervisor
        supervisor.changed = self._note

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, settings: LabSettings, report: Report = _say_nothing) -> AsyncIterator[Lab]:
        """Start a lab, and end it with the block.

        Ready inside the block: every component, and what ``legacy`` and ``sample`` ask for is applied and
        rolled out. Raises CheckRefused (LabNameInUse, NoFreeNetwork, NotLinux) before anything is started,
        Unavailable (ComponentFailed, NotReady) where it does not come up.
        """
        require_linux()
        with holding(settings.place, settings.name):
            await asyncio.to_thread(prepare_place, settings)
            private = settings.control_plane == "real"
            claim = None if private else claim_number(settings.home / "networks")
            network = LabNetwork(claim.number if claim else 0, private)
            try:
                async with cls._running(settings, network, report) as lab:
                    yield lab
            finally:
                if claim:
                    claim.release()

    @classmethod
    @contextlib.asynccontextmanager
    async def _running(cls, settings: LabSettings, network: LabNetwork, report: Report) -> AsyncIterator[Lab]:
        nonce = secrets.token_hex(8)
        blueprint = Blueprint(settings, network, f"{settings.name}/{nonce}")
        supervisor = Supervisor(blueprint, report, restart=settings.restart, timeout=settings.ready_timeout)
        lab = cls(settings, supervisor, _first_state(blueprint, nonce))
        lab._note()
        try:
            await first_error(supervisor.start())
            await lab._furnish(report)
            if settings.kubeconfig:
                export_kubeconfig(blueprint.kubeconfig, settings.kubeconfig)
            lab._note("ready")
            yield lab
        finally:
            lab._note("stopping")
            await supervisor.stop()
            await asyncio.to_thread(remove_files, settings.files)
            (settings.place / "state.json").unlink(missing_ok=True)

    async def _furnish(self, report: Report) -> None:
        if not self.settings.legacy and not self.settings.sample:
            return
        report("workloads", "applying")
        async with await self.client() as client:
            await first_error(furnish(client, legacy=self.settings.legacy, sample=self.settings.sample))
            report("workloads", "rolling out")
            await wait_for_deployments(client, self.settings.ready_timeout)
            report("workloads", "opening addresses")
            services = await client.list_all(SERVICES)
        for service in services:
            if service["spec"].get("type") == "LoadBalancer":
                metadata = service["metadata"]
                await self.wait_open(await self.address_of(metadata["name"], metadata["namespace"]))
        report("workloads", "ready")

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self._supervisor.blueprint.kubeconfig

    @property
    def network(self) -> LabNetwork:
        """The addresses of this lab."""
        return self._supervisor.blueprint.network

    @property
    def marker(self) -> str:
        """The environment marker of every process of this lab."""
        return self.state.marker

    async def client(self) -> KubeClient:
        """Return an administrator's client: ``async with await lab.client() as client``."""
        return await KubeClient.connect(self.kubeconfig)

    async def wait_ready(self, namespace: str | None = None, timeout: float = 60.0) -> None:
        """Wait until every Deployment (of a namespace) has rolled out."""
        async with await self.client() as client:
            await wait_for_deployments(client, timeout, namespace)

    async def wait_deployment(self, name: str, namespace: str = "default", timeout: float = 60.0) -> None:
        """Wait until a Deployment exists and has rolled out."""
        async with await self.client() as client:
            await wait_for_deployment(client, namespace, name, timeout)

    async def address_of(
        self, service: str, namespace: str = "default", port: int | str | None = None, timeout: float = 30.0
    ) -> tuple[str, int]:
        """Return where a Service can be reached: its load balancer's address, else its ClusterIP.

        ``port`` is a number or a name of the Service's ports, the first one by default.
        """
        async with await self.client() as client:
            return await find_address(client, service, namespace, port, timeout)

    async def wait_open(self, address: tuple[str, int], timeout: float = 15.0) -> None:
        """Wait until somebody listens on an address, as a Service does once an endpoint has been noticed."""
        try:
            async with asyncio.timeout(timeout):
                while not await _is_open(address):  # noqa: ASYNC110 - nothing tells when a listener opens
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise Unavailable(
                f"Nobody listens on {address[0]}:{address[1]} after {timeout:.0f} s",
                reason="NotReady",
                hint="howto/lab.md#addresses",
            ) from None

    async def balancer_state(self) -> dict[str, Any]:
        """Return the balancer's rules and what it listens on."""
        return await ask_balancer(self.network.node_address, "GET", "/lab/state")

    async def inject(self, targets: dict[str, Fault] | None = None, *, frozen: bool = False) -> None:
        """Replace the balancer's faults; without arguments there are none any more."""
        body = Faults(targets=targets or {}, frozen=frozen).model_dump()
        await ask_balancer(self.network.node_address, "PUT", "/lab/faults", body)

    def pid_of(self, component: str) -> int:
        """Return the process id of a component; 0 where it does not run."""
        return self._supervisor.children[component].pid

    def kill(self, component: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a component a signal that ends it; it is started again where the settings say so."""
        child = self._supervisor.children[component]
        child.ready.clear()
        child.send(number)

    async def start_again(self, component: str) -> None:
        """Start a component that was ended in a lab that does not do so itself, and wait until it is ready."""
        await self._supervisor.start_again(component)

    async def wait_component(self, component: str, timeout: float = 30.0) -> None:
        """Wait until a component that was ended is ready again; Unavailable after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._supervisor.children[component].ready.wait()
        except TimeoutError:
            raise Unavailable(
                f"The lab's {component} did not come back in {timeout:.0f} s",
                reason="ComponentFailed",
                hint="howto/lab.md#when-it-does-not-start",
            ) from None

    def _note(self, phase: str | None = None) -> None:
        """Write the state down."""
        components = tuple(
            ComponentState(
                name=child.name,
                pid=child.pid,
                restarts=child.restarts,
                ready=child.ready.is_set(),
                log=child.log,
            )
            for child in self._supervisor.children.values()
        )
        changes: dict[str, Any] = {"components": components, "phase": phase or self.state.phase}
        self.state = self.state.model_copy(update=changes)
        write_state(self.settings.place, self.state)


def require_linux() -> None:
    """Raise CheckRefused (NotLinux) elsewhere: 127.0.0.0/8 as a whole is loopback on Linux only."""
    if not sys.platform.startswith("linux"):
        raise CheckRefused(
            f"The lab needs Linux, where all of 127.0.0.0/8 is loopback; this is {sys.platform}.",
            reason="NotLinux",
            hint="howto/lab.md#requirements",
        )


async def _is_open(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except OSError:
        return False
    writer.close()
    return True


async def first_error(work: Any) -> None:
    """Await work that may fail in a task group; raise the first failure of ours instead of the group."""
    try:
        await work
    except BaseExceptionGroup as group:
        for error in _flatten(group.exceptions):
            if isinstance(error, KonvergeError):
                raise error from None
        raise


def _flatten(errors: Sequence[BaseException]) -> list[BaseException]:
    flat: list[BaseException] = []
    for error in errors:
        flat += _flatten(error.exceptions) if isinstance(error, BaseExceptionGroup) else [error]
    return flat


def _first_state(blueprint: Blueprint, nonce: str) -> LabState:
    settings, network = blueprint.settings, blueprint.network
    return LabState(
        name=settings.name,
        nonce=nonce,
        pid=os.getpid(),
        started=time.time(),
        network=network.number,
        private=network.private,
        control_plane=settings.control_plane,
        directory=settings.files,
        kubeconfig=blueprint.kubeconfig,
        server=network.server,
    )
