"""What the controller writes back: addresses of Ingresses, Programmed conditions, Events.

Every replica writes, since a DB-less sidecar elects no leader; a replica that finds the status as it should be
writes nothing.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from konverge.errors import KonvergeError
from konverge.kube.client import KubeClient
from konverge.kube.resources import EVENTS, INGRESS_CLASSES, INGRESSES, SERVICES, Object, Resource
from konverge.lab.sidecar.settings import SidecarSettings
from konverge.lab.sidecar.watching import WATCHED, ClusterView

log = logging.getLogger(__name__)

CLASS = "kubernetes.io/ingress.class"
IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"
COMPONENT = "kong-client"
PROGRAMMED_KINDS = {
    resource.kind: resource
    for resource in WATCHED
    if resource.kind in ("KongPlugin", "KongClusterPlugin", "KongConsumer", "KongConsumerGroup")
}


@dataclass(frozen=True, slots=True)
class Subject:
    """An object that an Event is about."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    api_version: str = "v1"


class Reporter:
    """Writes to the API server; a write that fails is logged and made again at the next tick."""

    def __init__(self, kube: KubeClient, view: ClusterView, settings: SidecarSettings) -> None:
        self._kube = kube
        self._view = view
        self._settings = settings
        self._told: frozenset[tuple[Subject, str, str]] = frozenset()

    async def tell_pod(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event on the controller's own pod."""
        settings = self._settings
        if settings.pod_name:
            pod = Subject("Pod", settings.pod_name, settings.pod_namespace)
            await self._record(pod, reason, message, warning)

    async def tell_objects(self, notices: Iterable[tuple[Subject, str, str]]) -> None:
        """Record warnings on objects: (subject, reason, message); one that was told last time is not repeated."""
        current = frozenset(notices)
        for subject, reason, message in sorted(current - self._told, key=repr):
            await self._record(subject, reason, message, warning=True)
        self._told = current

    async def update_statuses(self, document: Mapping[str, Any]) -> None:
        """Bring the status of the configured objects up to date."""
        addresses = self._addresses()
        for ingress in self._view.of(INGRESSES):
            if addresses and self._selects(ingress):
                await self._publish(ingress, addresses)
        for resource, body in self._configured(document):
            await self._mark_programmed(resource, body)

    def _addresses(self) -> list[dict[str, str]]:
        namespace, _, name = self._settings.publish_service.partition("/")
        service = self._view.of(SERVICES).objects.get((namespace, name))
        if service is None:
            return []
        if service["spec"].get("type") != "LoadBalancer":
            address = service["spec"].get("clusterIP")
            return [{"ip": address}] if address and address != "None" else []
        entries = service.get("status", {}).get("loadBalancer", {}).get("ingress", ())
        return [{key: entry[key] for key in ("hostname", "ip") if entry.get(key)} for entry in entries]

    def _selects(self, ingress: Object) -> bool:
        named = ingress["metadata"].get("annotations", {}).get(CLASS) or ingress["spec"].get("ingressClassName")
        if named:
            return bool(named == self._settings.ingress_class)
        ours = self._view.of(INGRESS_CLASSES).objects.get(("", self._settings.ingress_class), {})
        return bool(ours.get("metadata", {}).get("annotations", {}).get(IS_DEFAULT) == "true")

    async def _publish(self, ingress: Object, addresses: list[dict[str, str]]) -> None:
        current = ingress.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        if current != addresses:
            await self._patch_status(INGRESSES, ingress, {"loadBalancer": {"ingress": addresses}})

    def _configured(self, document: Mapping[str, Any]) -> Iterator[tuple[Resource, Object]]:
        """Yield the watched objects that an entity of the document was made from, by their tags."""
        for kind, namespace, name in sorted(tagged_objects(document)):
            resource = PROGRAMMED_KINDS.get(kind)
            body = self._view.of(resource).objects.get((namespace, name)) if resource else None
            if resource and body:
                yield resource, body

    async def _mark_programmed(self, resource: Resource, body: Object) -> None:
        generation = body["metadata"].get("generation", 1)
        conditions = body.get("status", {}).get("conditions", [])
        for condition in conditions:
            known = condition.get("type"), condition.get("status"), condition.get("observedGeneration")
            if known == ("Programmed", "True", generation):
                return
        fresh = {
            "type": "Programmed",
            "status": "True",
            "reason": "Programmed",
            "message": "The object is part of the configuration of the proxy.",
            "observedGeneration": generation,
            "lastTransitionTime": _now(),
        }
        others = [condition for condition in conditions if condition.get("type") != "Programmed"]
        await self._patch_status(resource, body, {"conditions": [*others, fresh]})

    async def _patch_status(self, resource: Resource, body: Object, status: dict[str, Any]) -> None:
        metadata = body["metadata"]
        try:
            await self._kube.patch(
                resource,
                metadata["name"],
                {"status": status},
                metadata.get("namespace"),
                subresource="status",
            )
        except KonvergeError as error:
            log.warning("status of %s %s not written: %s", resource.kind, metadata["name"], error)

    async def _record(self, subject: Subject, reason: str, message: str, warning: bool) -> None:
        namespace = subject.namespace or "default"
        event = {
            "metadata": {"name": f"{subject.name}.{uuid.uuid4().hex[:16]}", "namespace": namespace},
            "involvedObject": {
                "kind": subject.kind,
                "name": subject.name,
                "namespace": subject.namespace,
                "uid": subject.uid,
                "apiVersion": subject.api_version,
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": COMPONENT, "host": self._settings.pod_name},
            "firstTimestamp": _now(),
            "lastTimestamp": _now(),
            "count": 1,
        }
        try:
            await self._kube.create(EVENTS, {"apiVersion": "v1", "kind": "Event", **event}, namespace)
        except KonvergeError as error:
            log.warning("event %s on %s %s not written: %s", reason, subject.kind, subject.name, error)


def tagged_objects(document: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Return (kind, namespace, name) of the objects that plugins, consumers and groups were made from."""
    entities = [entity for key in ("plugins", "consumers", "consumer_groups") for entity in document.get(key, ())]
    found = (read_tags(entity.get("tags", ())) for entity in entities)
    return {
        (tags["kind"], tags.get("namespace", ""), tags["name"]) for tags in found if tags.keys() >= {"kind", "name"}
    }


def read_tags(tags: Iterable[str]) -> dict[str, str]:
    """Return the Kubernetes identity in an entity's tags: kind, namespace, name, uid, group, version."""
    pairs = (tag.removeprefix("k8s-").partition(":") for tag in tags if tag.startswith("k8s-"))
    return {key: value for key, colon, value in pairs if colon}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
