"""Which processes a lab consists of, and with what arguments they are started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from konverge.lab.addressing import API_PORT, KUBELET_PORT, LabNetwork
from konverge.lab.supervisor.children import Child, python
from konverge.lab.supervisor.settings import LabSettings
from konverge.lab.supervisor.watchdog import MARKER

BALANCER_HTTP_PORT = 10249
_NOT_INHERITED = frozenset({"KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"})
"""A process of the lab must never find another cluster by accident."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What the command lines are made of."""

    settings: LabSettings
    network: LabNetwork
    marker: str

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, written by the control plane."""
        return self.plane / "admin.kubeconfig"

    @property
    def plane(self) -> Path:
        """The control plane's directory."""
        return self.settings.files / "apiserver"

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of every component."""
        inherited = os.environ if base is None else base
        kept = {name: value for name, value in inherited.items() if name not in _NOT_INHERITED}
        return {**kept, MARKER: self.marker, "PYTHONUNBUFFERED": "1"}

    def control_plane(self) -> Child:
        """Return the API server; a real control plane brings its controllers along."""
        network, plane = self.network, str(self.plane)
        if self.settings.control_plane == "real":
            words = ["--dir", plane, "--bind", network.node_address, "--port", str(API_PORT)]
            words += ["--service-cidr", network.service_cidr]
            return self._child("apiserver", "konverge.lab.realplane", words)
        words = ["--listen", f"{network.node_address}:{API_PORT}", "--dir", plane]
        words += ["--service-cidr", network.service_cidr]
        words += ["--allow-loopback-endpoints", "--loopback-range", network.cidr]
        words.append("--rbac" if self.settings.rbac else "--no-rbac")
        if self.settings.audit:
            words += ["--audit-log", str(self.plane / "audit.jsonl")]
        return self._child("apiserver", "konverge.lab.apiserver", words)

    def followers(self) -> list[Child]:
        """Return the components that need an API server to talk to."""
        return [self._controllers(), self._kubelet(), self._balancer()]

    def _controllers(self) -> Child:
        words = ["--kubeconfig", str(self.kubeconfig)]
        words += ["--load-balancer-cidr", self.network.load_balancer_cidr]
        if self.settings.control_plane == "real":
            words.append("--only-load-balancers")
        return self._child("controllers", "konverge.lab.controllers", words)

    def _kubelet(self) -> Child:
        network = self.network
        words = ["--kubeconfig", str(self.kubeconfig), "--dir", str(self.settings.files / "kubelet")]
        words += ["--address", network.node_address, "--port", str(KUBELET_PORT)]
        words += ["--pod-cidr", network.pod_cidr, "--loopback-cidr", network.loopback_cidr]
        words += ["--delays", f"start={self.settings.start_delay}"]
        words += ["--ca-cert", str(self.plane / "ca.crt"), "--ca-key", str(self.plane / "ca.key")]
        return self._child("kubelet", "konverge.lab.kubelet", words)

    def _balancer(self) -> Child:
        words = ["--kubeconfig", str(self.kubeconfig), "--node-address", self.network.node_address]
        words += ["--sync-delay", str(self.settings.sync_delay)]
        words += ["--http", f"{self.network.node_address}:{BALANCER_HTTP_PORT}"]
        return self._child("balancer", "konverge.lab.balancer", words)

    def _child(self, name: str, module: str, words: list[str]) -> Child:
        log = self.settings.files / "logs" / f"{name}.log"
        return Child(name, python(module, *words), self.environment(), log)
