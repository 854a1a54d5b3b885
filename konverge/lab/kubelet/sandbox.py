"""What the containers of one pod share: the pod itself, its addresses, volumes and directories."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from konverge.lab.kubelet.access import write_kubeconfig
from konverge.lab.kubelet.addresses import PodAddress
from konverge.lab.kubelet.context import Context
from konverge.lab.kubelet.environment import Sources, build_environment
from konverge.lab.kubelet.images import HOST, Program
from konverge.lab.kubelet.mounts import TOKEN_DIRECTORY, map_mounts, translate
from konverge.lab.kubelet.processes import Launch
from konverge.lab.kubelet.volumes import PodVolumes
from konverge.lab.pod import POD_IP, POD_LOOPBACK, POD_MOUNTS, POD_NAME, POD_NAMESPACE

Object = dict[str, Any]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("PYTHONPATH", "KONVERGE_LAB", "COVERAGE_PROCESS_START", "LD_LIBRARY_PATH")
"""Variables of the kubelet that containers get too: where the code is, and which lab this is."""


@dataclass(slots=True)
class Sandbox:
    """A pod on this node. ``pod`` is always the newest version seen."""

    context: Context
    pod: Object
    address: PodAddress
    volumes: PodVolumes
    changed: Callable[[], None]
    """Called when something happened that the pod's status should tell."""

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return str(self.pod["metadata"]["uid"])

    @property
    def label(self) -> str:
        """``namespace/name`` for messages."""
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def home(self, container: str) -> Path:
        """Return the working directory of a container."""
        return self.context.path("pods", self.uid, "containers", container)

    def log_directory(self, container: str) -> Path:
        """Return where a container's logs are."""
        metadata = self.pod["metadata"]
        pod = f"{metadata['namespace']}_{metadata['name']}_{metadata['uid']}"
        return self.context.path("logs", pod, container)

    def sources(self) -> Sources:
        """Return what environment variables are taken from."""
        namespace = str(self.pod["metadata"]["namespace"])
        api = self.context.client.server.partition("://")[2].rpartition(":")
        return Sources(
            pod=self.pod,
            pod_ip=self.address.ip,
            host_ip=self.context.settings.address,
            secret=lambda name: self.context.secret(namespace, name),
            config_map=lambda name: self.context.config_map(namespace, name),
            services=list(self.context.mirrors.services.objects.values()),
            api_host=api[0],
            api_port=api[2],
        )

    async def prepare(self, container: Object) -> ContainerPlace:
        """Build environment and mounts of a container; ConfigError where something is missing yet."""
        variables = build_environment(container, self.sources())
        home = self.home(container["name"])
        mounts = await map_mounts(container, self.volumes, variables, home)
        env = {**self._base(home), **variables, **self._lab(mounts)}
        account = mounts.get(TOKEN_DIRECTORY)
        if account and "KUBECONFIG" not in env:
            target = home / "kubeconfig"
            namespace = str(self.pod["metadata"]["namespace"])
            server = self.context.client.server
            await asyncio.to_thread(write_kubeconfig, target, server, Path(account), namespace)
            env["KUBECONFIG"] = str(target)
        return ContainerPlace(env, mounts, str(home))

    def _base(self, home: Path) -> dict[str, str]:
        commands = self.context.path("bin")
        own = os.path.dirname(sys.executable)
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        return {
            "PATH": f"{commands}:{own}:{SYSTEM_PATH}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "HOSTNAME": str(self.pod["spec"].get("hostname") or self.pod["metadata"]["name"]),
            **passed,
        }

    def _lab(self, mounts: dict[str, str]) -> dict[str, str]:
        return {
            POD_IP: self.address.ip,
            POD_LOOPBACK: self.address.loopback,
            POD_MOUNTS: orjson.dumps(mounts).decode(),
            POD_NAME: str(self.pod["metadata"]["name"]),
            POD_NAMESPACE: str(self.pod["metadata"]["namespace"]),
        }


@dataclass(frozen=True, slots=True)
class ContainerPlace:
    """Environment, mounts and directory of one run of a container."""

    env: dict[str, str]
    mounts: dict[str, str]
    home: str

    def launch(self, program: Program, words: tuple[str, ...], *, tty: bool = False) -> Launch:
        """Return how to run a program here; paths of host commands are translated."""
        arguments = translate(words, self.mounts) if program == HOST else words
        return Launch(program, arguments, self.env, self.home, tty)

    def __repr__(self) -> str:
        return f"ContainerPlace({self.home!r})"
