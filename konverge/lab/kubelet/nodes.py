"""The nodes that a kubelet plays: registered, kept Ready and leased."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from typing import Any

from konverge.errors import Conflict, KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import LEASES, NODES
from konverge.lab.kubelet.recording import timestamp
from konverge.lab.kubelet.settings import KubeletSettings

Object = dict[str, Any]
LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
"""``nodeLeaseDurationSeconds`` of the kubelet; renewed at a quarter of it."""
STATUS_EVERY = 300.0
"""``nodeStatusReportFrequency``: seconds between status writes when nothing changed."""
CAPACITY = {"cpu": "8", "memory": "32Gi", "pods": "250", "ephemeral-storage": "100Gi"}
"""Declared, not enforced: the lab ignores resource limits."""
KUBELET_VERSION = "v1.36.2"
log = logging.getLogger(__name__)


async def keep_node(client: KubeClient, settings: KubeletSettings, name: str, registered: asyncio.Event) -> None:
    """Register a node and renew its lease until cancelled; ``registered`` is set once it is there and Ready."""
    interval = LEASE_SECONDS / 4
    since = STATUS_EVERY
    while True:
        try:
            if since >= STATUS_EVERY:
                await _report(client, settings, name)
                since = 0.0
                registered.set()
            await _renew(client, name)
            pause = interval
        except KonvergeError as error:
            log.debug("node %s: %s", name, error)
            pause, since = 0.5, STATUS_EVERY
        await asyncio.sleep(pause)
        since += pause


async def _report(client: KubeClient, settings: KubeletSettings, name: str) -> None:
    node = await client.find(NODES, name)
    if node is None:
        try:
            node = await client.create(NODES, _node(name))
        except Conflict:
            node = await client.get(NODES, name)
    status = _status(settings, name, node.get("status") or {})
    await client.patch(NODES, name, {"status": status}, kind="strategic", subresource="status")


def _node(name: str) -> Object:
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": "lab",
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}


def _status(settings: KubeletSettings, name: str, before: Object) -> Object:
    return {
        "capacity": CAPACITY,
        "allocatable": CAPACITY,
        "addresses": [
            {"type": "InternalIP", "address": settings.address},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "conditions": [_condition(kind, before) for kind in ("MemoryPressure", "DiskPressure", "Ready")],
        "nodeInfo": {
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "containerRuntimeVersion": "konverge-lab://1",
            "operatingSystem": "linux",
            "architecture": "amd64",
            "osImage": "Konverge lab",
            "kernelVersion": os.uname().release,
            "machineID": name,
            "systemUUID": name,
            "bootID": name,
        },
    }


def _condition(kind: str, before: Object) -> Object:
    ready = kind == "Ready"
    status = "True" if ready else "False"
    old: Object = next((item for item in before.get("conditions") or () if item["type"] == kind), {})
    return {
        "type": kind,
        "status": status,
        "reason": "KubeletReady" if ready else f"KubeletHasNo{kind}",
        "message": "the lab's kubelet is posting ready status" if ready else "the lab does not measure it",
        "lastHeartbeatTime": timestamp(),
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == status else timestamp(),
    }


async def _renew(client: KubeClient, name: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
    if await client.find(LEASES, name, LEASE_NAMESPACE) is None:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
            "spec": spec,
        }
        await client.create(LEASES, body)
    else:
        await client.patch(LEASES, name, {"spec": spec}, LEASE_NAMESPACE)


async def mark_down(client: KubeClient, name: str) -> None:
    """Say that the node is going: its Ready condition turns False; errors do not matter any more."""
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "KubeletStopped",
        "message": "the lab's kubelet has ended",
        "lastHeartbeatTime": timestamp(),
        "lastTransitionTime": timestamp(),
    }
    try:
        patch = {"status": {"conditions": [condition]}}
        await client.patch(NODES, name, patch, kind="strategic", subresource="status")
    except KonvergeError as error:
        log.debug("node %s is not marked down: %s", name, error)
