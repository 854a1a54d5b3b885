"""What ``konverge diff`` compares: files, running proxies, stored revisions, the cluster, behind one interface."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from konverge.cli.manifests import is_configuration, list_objects, read_documents
from konverge.errors import UsageError
from konverge.kong.admin import AdminClient
from konverge.kong.declarative import Configuration, drop_marker, flatten, read_entities
from konverge.kube.client import KubeClient
from konverge.operate.fleets import load_fleet
from konverge.operate.rendering import gather_sources
from konverge.operate.revisions import load_revision
from konverge.translate import Settings, render

PROXY = "proxy:"
REVISION = "revision:"
CLUSTER = "cluster"
HINT = "reference/cli.md#diff"


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach proxies and the cluster, and how to translate what is not translated yet."""

    settings: Settings = field(default_factory=Settings)
    cluster_settings: Settings = field(default_factory=Settings)
    kubeconfig: str | None = None
    context: str | None = None
    fleet: str = ""
    namespace: str = "default"
    client_cert: Path | None = None
    client_key: Path | None = None
    ca: Path | None = None
    server_name: str = ""
    insecure: bool = False

    def tls(self) -> ssl.SSLContext:
        """Return the context for Admin APIs; UsageError where a file cannot be loaded."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.client_cert is not None:
                context.load_cert_chain(str(self.client_cert), str(self.client_key) if self.client_key else None)
        except (OSError, ssl.SSLError) as error:
            message = f"The TLS files cannot be loaded: {error.strerror or type(error).__name__}"
            raise UsageError(message, reason="UnreadableFile", hint=HINT) from error
        return context

    async def kube(self) -> KubeClient:
        """Return a client of the cluster."""
        return await KubeClient.connect(self.kubeconfig, self.context)


class Source(Protocol):
    """Something that has a configuration."""

    async def load(self) -> Configuration:
        """Return the configuration, without our own marker route."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A declarative configuration, or manifests that are rendered first."""

    path: str
    access: Access

    async def load(self) -> Configuration:
        """Read and, where it is manifests, render."""
        documents = read_documents(self.path)
        if is_configuration(documents):
            return drop_marker(flatten(next(document for document in documents if document is not None)))
        return flatten(render(list_objects(documents), self.access.settings).document)


@dataclass(frozen=True, slots=True)
class ProxySource:
    """A running proxy, by its Admin API."""

    url: str
    access: Access

    async def load(self) -> Configuration:
        """Page through the entities."""
        context = self.access.tls() if self.url.startswith("https:") else None
        async with AdminClient(self.url, context=context, server_name=self.access.server_name) as admin:
            return drop_marker(await read_entities(admin))


@dataclass(frozen=True, slots=True)
class RevisionSource:
    """A ConfigRevision of the fleet."""

    number: int
    access: Access

    async def load(self) -> Configuration:
        """Read the stored bytes."""
        if not self.access.fleet:
            raise UsageError("revision:N needs --fleet", hint=HINT)
        async with await self.access.kube() as kube:
            fleet = await load_fleet(kube, self.access.fleet, self.access.namespace)
            revision = await load_revision(kube, fleet, self.number)
        document: Mapping[str, Any] = orjson.loads(revision.content)
        return drop_marker(flatten(document))


@dataclass(frozen=True, slots=True)
class ClusterSource:
    """The objects of the cluster, rendered now."""

    access: Access

    async def load(self) -> Configuration:
        """Gather and render."""
        async with await self.access.kube() as kube:
            objects = await gather_sources(kube)
        return flatten(render(objects, self.access.cluster_settings).document)


def open_source(text: str, access: Access) -> Source:
    """Return the source that a word on the command line means."""
    if text == CLUSTER:
        return ClusterSource(access)
    if text.startswith(REVISION):
        number = text.removeprefix(REVISION)
        if not (number.isascii() and number.isdigit()):
            raise UsageError(f"{text!r}: the number of a revision is a whole number", hint=HINT)
        return RevisionSource(int(number), access)
    if text.startswith((PROXY, "http://", "https://")):
        url = text.removeprefix(PROXY)
        return ProxySource(url if "://" in url else f"https://{url}", access)
    return FileSource(text, access)


def read_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)
