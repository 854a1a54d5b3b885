"""Gathers the source objects of the cluster and renders them once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from konverge.errors import Forbidden, NotFound
from konverge.kong.marker import add_marker, find_shadows
from konverge.kube.caching import ALWAYS_SERVED
from konverge.kube.client import KubeClient
from konverge.kube.resources import SECRETS, SOURCES, Object, Resource
from konverge.model.fleet import Fleet
from konverge.model.revision import Revision
from konverge.operate.clock import Clock, utc_now
from konverge.operate.connecting import probe_token
from konverge.translate import Rendered, Settings, for_cluster, render

OWN_SECRETS = "!konverge.dev/fleet"
"""Label selector that leaves out our own Secrets: revisions and identities are no sources."""
NO_RELEASES = "type!=helm.sh/release.v1"
"""Field selector that leaves out helm's release records, often 300 KB each."""


def source_filters(resource: Resource) -> tuple[str, str]:
    """Return (label selector, field selector) for listing or watching a source kind."""
    return (OWN_SECRETS, NO_RELEASES) if resource == SECRETS else ("", "")


async def gather_sources(kube: KubeClient) -> list[Object]:
    """List every source kind in parallel; a kind whose CRD is not installed has no objects."""
    lists = await asyncio.gather(*(_list_kind(kube, resource) for resource in SOURCES))
    return [body for items in lists for body in items]


async def _list_kind(kube: KubeClient, resource: Resource) -> list[Object]:
    labels, fields = source_filters(resource)
    try:
        return await kube.list_all(resource, labels=labels, fields=fields)
    except NotFound:
        return []
    except Forbidden:
        if resource.group in ALWAYS_SERVED:
            raise
        return []


def translation_settings(fleet: Fleet, clock: Clock = utc_now) -> Settings:
    """Return the translator's settings for a fleet."""
    features = dict(fleet.spec.features)
    if fleet.spec.router_flavor == "expressions":
        features.setdefault("ExpressionRoutes", True)
    settings = for_cluster(ingress_class=fleet.spec.ingress_class, features=features)
    return replace(settings, now=clock())


def compile_revision(fleet: Fleet, sources: Iterable[Object], clock: Clock = utc_now) -> tuple[Revision, Rendered]:
    """Render the sources into a draft revision (number 0): the bytes for every proxy, serialised once.

    The draft carries a marker route that answers, on request only, with the hash of everything else; the data
    path is probed with it.
    """
    rendered = render(sources, translation_settings(fleet, clock))
    return finish_revision(fleet, rendered), rendered


def finish_revision(fleet: Fleet, rendered: Rendered) -> Revision:
    """Add the marker to what was rendered and return the draft; what is serialised already is not touched again."""
    marker = add_marker(
        {}, fleet=fleet.name, revision=rendered.hash, token=probe_token(fleet), flavor=fleet.spec.router_flavor
    )
    marked = rendered
    for route in marker["routes"]:
        marked = marked.add_entity("routes", route)
    services = rendered.document.get("services", [])
    return Revision(
        number=0,
        content=marked.content,
        marker="" if find_shadows(rendered.document) else rendered.hash,
        routes=sum(len(service.get("routes", ())) for service in services),
        services=len(services),
        problems=len(rendered.problems),
    )
