"""Reads a scene: everything that the checks look at, once, in parallel, each part with its own failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson

from konverge.checks.measuring import measure_server
from konverge.checks.orchestrating import read_orchestrator
from konverge.checks.proxying import view_gateways
from konverge.checks.rights import EXEC_RIGHTS, FLEET_RIGHTS, MIGRATION_RIGHTS, SOURCE_RIGHTS
from konverge.checks.scene import Reading, Rendering, Right, Scene
from konverge.decide.legacy import LegacyRelease
from konverge.errors import FinalError, KonvergeError, NotFound
from konverge.kong.marker import find_shadows
from konverge.kube.client import KubeClient
from konverge.kube.resources import (
    CRDS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HORIZONTAL_POD_AUTOSCALERS,
    INGRESS_CLASSES,
    NAMESPACES,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SERVICES,
    Object,
    Resource,
)
from konverge.model.fleet import Fleet
from konverge.model.rotation import CertificateView
from konverge.operate.clock import Clock, utc_now
from konverge.operate.fleets import find_fleet, list_instances, parse_fleet
from konverge.operate.identities import load_keys
from konverge.operate.migrating import discover_release
from konverge.operate.observing import list_certificates
from konverge.operate.rendering import compile_revision, gather_sources
from konverge.operate.revisions import list_revisions

T = TypeVar("T")

_ADMISSION = "admissionregistration.k8s.io"
CLUSTER_KINDS = (
    CRDS,
    NAMESPACES,
    NODES,
    INGRESS_CLASSES,
    Resource(_ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", False),
    Resource(_ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", False),
)
NAMESPACED_KINDS = (
    DEPLOYMENTS,
    SERVICES,
    ENDPOINT_SLICES,
    POD_DISRUPTION_BUDGETS,
    HORIZONTAL_POD_AUTOSCALERS,
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
)
EVERYWHERE = (PODS, ENDPOINT_SLICES)
"""Kinds that are read in every namespace: pods take room on nodes, webhooks live anywhere."""
REVIEWS_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Question:
    """What a scene is read for. ``release`` and ``deployment`` name a per-pod release, "" for none."""

    namespace: str
    fleet: str
    release: str = ""
    deployment: str = ""
    before: bool = False
    client_version: str = ""
    """Version of the Prefect client in this environment."""


async def read(work: Awaitable[T]) -> Reading[T]:
    """Wait for one part of the scene; its failure takes the place of the value."""
    try:
        return Reading(await work)
    except KonvergeError as error:
        return Reading(failure=error)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return Reading(failure=FinalError(f"the answer was not understood: {error!r}", reason="NotUnderstood"))


async def gather_scene(kube: KubeClient, question: Question, clock: Clock = utc_now) -> Scene:
    """Read everything that the checks look at; never raises, each part carries its own failure."""
    server = await read(measure_server(kube, clock))
    parts = await asyncio.gather(
        read(review_rights(kube, question)),
        read(read_kinds(kube)),
        _read_objects(kube, question.namespace),
        _read_fleet(kube, question),
        _read_release(kube, question),
        read_orchestrator(clock, read),
    )
    rights, kinds, objects, fleet, release, orchestrator = parts
    scene = Scene(
        now=clock(),
        namespace=question.namespace,
        fleet_name=question.fleet,
        release_name=question.release,
        client_version=question.client_version,
        server=server,
        rights=rights,
        kinds=kinds,
        objects=objects,
        fleet=fleet,
        release=release,
        orchestrator=orchestrator,
    )
    return await _look_inside(kube, scene, clock)


async def _look_inside(kube: KubeClient, scene: Scene, clock: Clock) -> Scene:
    """Add what needs the fleet to be known: its proxies, certificates, revisions, and what it would render."""
    fleet = scene.fleet.value if scene.fleet is not None else None
    if fleet is None:
        spec = {"proxyService": "unknown", "ingressClass": _ingress_class(scene)}
        draft = Fleet.model_validate({"name": scene.fleet_name, "namespace": scene.namespace, "spec": spec})
        return replace(scene, rendering=await read(_render(kube, draft, clock)))
    instances, revisions, certificates, gateways, rendering = await asyncio.gather(
        read(list_instances(kube, fleet)),
        read(list_revisions(kube, fleet)),
        read(_list_certificates(kube, fleet, clock)),
        read(view_gateways(kube, fleet, clock)),
        read(_render(kube, fleet, clock)),
    )
    return replace(
        scene,
        instances=instances,
        revisions=revisions,
        certificates=certificates,
        gateways=gateways,
        rendering=rendering,
    )


def _ingress_class(scene: Scene) -> str:
    release = scene.release.value if scene.release is not None else None
    return release.ingress_class if release else "kong"


async def _read_fleet(kube: KubeClient, question: Question) -> Reading[Fleet] | None:
    try:
        body = await find_fleet(kube, question.fleet, question.namespace)
        return Reading(parse_fleet(body)) if body is not None else None
    except KonvergeError as error:
        return Reading(failure=error)


async def _read_release(kube: KubeClient, question: Question) -> Reading[LegacyRelease] | None:
    if not question.release:
        return None
    return await read(discover_release(kube, question.namespace, question.release, question.deployment, ""))


async def _list_certificates(kube: KubeClient, fleet: Fleet, clock: Clock) -> list[CertificateView]:
    return list_certificates(await load_keys(kube, fleet, clock), clock)


async def _render(kube: KubeClient, fleet: Fleet, clock: Clock) -> Rendering:
    sources = await gather_sources(kube)
    draft, rendered = await asyncio.to_thread(compile_revision, fleet, sources, clock)
    problems = tuple(f"{problem.object_ref}: {problem.message}" for problem in rendered.problems)
    return Rendering(len(draft.content), draft.routes, problems, tuple(map(str, find_shadows(rendered.document))))


async def read_kinds(kube: KubeClient) -> frozenset[str]:
    """Return ``plural.group/version`` of every kind that the API server serves."""
    groups = _json(await kube.request("GET", "/apis"))
    paths = [("", "v1", "/api/v1")]
    for group in groups.get("groups") or ():
        for version in group.get("versions") or ():
            paths.append((group["name"], version["version"], f"/apis/{version['groupVersion']}"))
    lists = await asyncio.gather(*(_read_group(kube, path) for _, _, path in paths))
    return frozenset(
        f"{f'{plural}.{group}'.rstrip('.')}/{version}"
        for (group, version, _), plurals in zip(paths, lists, strict=True)
        for plural in plurals
    )


async def _read_group(kube: KubeClient, path: str) -> list[str]:
    try:
        body = _json(await kube.request("GET", path))
    except NotFound:
        return []
    return [resource["name"] for resource in body.get("resources") or () if "/" not in resource["name"]]


async def _read_objects(kube: KubeClient, namespace: str) -> dict[str, Reading[list[Object]]]:
    wanted: list[tuple[str, Resource, str | None]] = [(r.plural, r, None) for r in CLUSTER_KINDS]
    wanted += [(r.plural, r, namespace) for r in NAMESPACED_KINDS]
    wanted += [(f"{r.plural}/all", r, None) for r in EVERYWHERE]
    found = await asyncio.gather(*(read(_list(kube, resource, where)) for _, resource, where in wanted))
    return {name: reading for (name, _, _), reading in zip(wanted, found, strict=True)}


async def _list(kube: KubeClient, resource: Resource, namespace: str | None) -> list[Object]:
    try:
        return await kube.list_all(resource, namespace)
    except NotFound:
        return []


async def review_rights(kube: KubeClient, question: Question) -> Mapping[Right, bool]:
    """Ask the API server for each right that the verbs use (SelfSubjectAccessReview)."""
    wanted = {*SOURCE_RIGHTS, *FLEET_RIGHTS, *EXEC_RIGHTS, *(MIGRATION_RIGHTS if question.before else ())}
    slots = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def ask(right: Right) -> bool:
        async with slots:
            return await _review(kube, right, question.namespace)

    rights = sorted(wanted, key=str)
    return dict(zip(rights, await asyncio.gather(*map(ask, rights)), strict=True))


async def _review(kube: KubeClient, right: Right, namespace: str) -> bool:
    attributes = {
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
        "namespace": namespace if right.namespaced else "",
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = _json(await kube.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=body))
    return bool(answer.get("status", {}).get("allowed"))


def _json(content: bytes) -> Object:
    document = orjson.loads(content)
    return document if isinstance(document, dict) else {}
