"""The volumes of one pod on disk: set up before its containers, kept in step while they run."""

from __future__ import annotations

import asyncio
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from konverge.errors import KonvergeError
from konverge.kube.resources import SERVICE_ACCOUNTS, Object
from konverge.lab.kubelet.context import Context, TaskSet
from konverge.lab.kubelet.environment import ConfigError
from konverge.lab.kubelet.payloads import (
    NotMountable,
    Origins,
    is_projected,
    token_requests,
    volume_payload,
)
from konverge.lab.kubelet.projecting import AtomicDirectory

FIRST_RETRY, LAST_RETRY = 0.5, 122.0
"""Seconds between attempts to mount a volume: the kubelet's exponential back-off."""
ROTATE_AT = 0.8
"""Share of a token's life after which the kubelet asks for a new one."""
ROTATE_AFTER = 24 * 3600.0
log = logging.getLogger(__name__)


class PodVolumes:
    """Sets up, refreshes and removes the volumes of a pod."""

    def __init__(self, context: Context, pod: Object, pod_ip: str) -> None:
        self._context = context
        self.pod = pod
        self._pod_ip = pod_ip
        self.root = context.path("pods", pod["metadata"]["uid"])
        self._volumes: list[Object] = pod["spec"].get("volumes") or []
        self._directories: dict[str, AtomicDirectory] = {}
        self._tokens: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self._tasks = TaskSet()
        self.missing = ""
        """Why the volumes are not there yet."""

    def path(self, name: str) -> Path:
        """Return the directory of a volume; KeyError where the pod has no such volume."""
        volume = next(item for item in self._volumes if item["name"] == name)
        if volume.get("hostPath"):
            return Path(volume["hostPath"]["path"])
        if volume.get("persistentVolumeClaim"):
            claim = str(volume["persistentVolumeClaim"]["claimName"])
            return self._context.path("claims", str(self.pod["metadata"]["namespace"]), claim)
        return self.root / "volumes" / name

    async def set_up(self) -> None:
        """Return once every volume is there; what is missing is told by Events and tried again."""
        pause = FIRST_RETRY
        self._listen()
        while True:
            self._changed.clear()
            try:
                await self._fetch_tokens()
                await self._write_all()
                break
            except KonvergeError as error:
                self._report(error)
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                pause = min(2 * pause, LAST_RETRY)
        self.missing = ""
        self._tasks.add(self._refresh())

    def _report(self, error: KonvergeError) -> None:
        self.missing = error.message
        self._context.emit(self.pod, "FailedMount", error.message, warning=True)

    def _listen(self) -> None:
        for mirror in (self._context.mirrors.secrets, self._context.mirrors.config_maps):
            mirror.listen(self._notice)

    def _notice(self, before: Object | None, after: Object | None) -> None:
        item = after or before or {}
        metadata = item.get("metadata", {})
        if metadata.get("namespace") == self.pod["metadata"]["namespace"] and self._uses(metadata["name"]):
            self._changed.set()

    def _uses(self, name: str) -> bool:
        return f'"{name}"'.encode() in orjson.dumps(self._volumes)

    def update(self, pod: Object) -> None:
        """Take a new version of the pod: its labels and annotations may be mounted."""
        before, self.pod = self.pod, pod
        if any(before["metadata"].get(key) != pod["metadata"].get(key) for key in ("labels", "annotations")):
            self._changed.set()

    def _origins(self) -> Origins:
        namespace = str(self.pod["metadata"]["namespace"])
        return Origins(
            pod=self.pod,
            pod_ip=self._pod_ip,
            host_ip=self._context.settings.address,
            secret=lambda name: self._context.secret(namespace, name),
            config_map=lambda name: self._context.config_map(namespace, name),
            tokens=self._tokens,
        )

    async def _write_all(self) -> None:
        """Write every volume as the objects are now; one that is missing keeps the others from nothing."""
        problem: KonvergeError | None = None
        for volume in self._volumes:
            try:
                await self._write(volume)
            except (NotMountable, ConfigError, ValueError, OSError) as error:
                text = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
                problem = NotMountable(text)
        if problem is not None:
            raise problem

    async def _write(self, volume: Object) -> None:
        name = volume["name"]
        if not is_projected(volume):
            if not volume.get("hostPath"):
                await asyncio.to_thread(self.path(name).mkdir, parents=True, exist_ok=True)
            return
        payload = volume_payload(volume, self._origins())
        directory = self._directories.setdefault(name, AtomicDirectory(self.path(name)))
        await asyncio.to_thread(directory.write, payload)

    async def _refresh(self) -> None:
        """Bring changes into the volumes, each after the kubelet's delay."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(self._context.project_delay())
            self._changed.clear()
            try:
                await self._write_all()
            except KonvergeError as error:
                # Files that were there stay, as with the kubelet when their Secret is deleted.
                self._context.emit(self.pod, "FailedMount", error.message, warning=True)

    async def _fetch_tokens(self) -> None:
        for key, request in token_requests(self._volumes).items():
            if key not in self._tokens:
                lifetime = await self._fetch_token(key, request)
                self._tasks.add(self._rotate(key, request, lifetime))

    async def _fetch_token(self, key: str, request: Object) -> float:
        """Ask for a token bound to the pod; return its life in seconds."""
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        account = str(spec.get("serviceAccountName") or "default")
        body: dict[str, Any] = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": account, "namespace": metadata["namespace"]},
            "spec": {
                "audiences": [request["audience"]] if request.get("audience") else [],
                "expirationSeconds": int(request.get("expirationSeconds") or 3600),
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        path = SERVICE_ACCOUNTS.path(str(metadata["namespace"]), account, "token")
        status = orjson.loads(await self._context.client.request("POST", path, body=body))["status"]
        self._tokens[key] = str(status["token"]).encode()
        expires = datetime.fromisoformat(str(status["expirationTimestamp"]))
        return max((expires - datetime.now(UTC)).total_seconds(), 1.0)

    async def _rotate(self, key: str, request: Object, lifetime: float) -> None:
        while True:
            await asyncio.sleep(min(lifetime * ROTATE_AT, ROTATE_AFTER))
            try:
                lifetime = await self._fetch_token(key, request)
                self._changed.set()
            except KonvergeError as error:
                log.warning("The token of %s is not renewed: %s", self.pod["metadata"]["name"], error)
                lifetime = 10.0

    async def tear_down(self, *, remove: bool) -> None:
        """Stop refreshing; with ``remove`` delete the pod's directory."""
        for mirror in (self._context.mirrors.secrets, self._context.mirrors.config_maps):
            mirror.forget(self._notice)
        await self._tasks.cancel()
        if remove:
            await asyncio.to_thread(shutil.rmtree, self.root, ignore_errors=True)
