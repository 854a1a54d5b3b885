"""Reads and writes ProxyFleet and ProxyInstance objects."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from konverge.errors import CheckRefused, Conflict, Invalid, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import PROXY_FLEETS, PROXY_INSTANCES, Object
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.proxy import Proxy, ProxyStatus
from konverge.model.rules import explain_errors

WRITE_ATTEMPTS = 5
"""How often a status write is repeated on the newest object when somebody else wrote in between."""


def parse_fleet(body: Object) -> Fleet:
    """Turn a ProxyFleet object into a value; Invalid names the object, the fields and what to write instead."""
    metadata = body["metadata"]
    try:
        return Fleet(
            name=metadata["name"],
            namespace=metadata["namespace"],
            uid=metadata.get("uid", ""),
            generation=int(metadata.get("generation", 0)),
            spec=FleetSpec.model_validate(body.get("spec", {})),
            status=FleetStatus.model_validate(body.get("status", {})),
        )
    except ValidationError as error:
        raise _invalid_fleet(metadata, error) from error


def _invalid_fleet(metadata: Object, error: ValidationError) -> Invalid:
    found = "; ".join(f"{field}: {message}" for field, message in explain_errors(error))
    return Invalid(
        f"ProxyFleet {metadata['namespace']}/{metadata['name']}: {found}",
        reason="InvalidFleet",
        hint="reference/errors.md#invalid-fleet",
    )


async def require_crds(kube: KubeClient) -> None:
    """Raise CheckRefused where the CRDs of konverge.dev are not installed."""
    try:
        await kube.request("GET", "/apis/konverge.dev/v1alpha1")
    except NotFound:
        raise CheckRefused(
            "The API server does not know konverge.dev/v1alpha1; install the CRDs first:"
            " konverge crds | kubectl apply --server-side -f -",
            reason="CrdsMissing",
            hint="reference/errors.md#crds-missing",
        ) from None


async def load_fleet(kube: KubeClient, name: str, namespace: str) -> Fleet:
    """Read a fleet; NotFound lists the fleets that exist, CheckRefused says that the CRDs are missing."""
    body = await find_fleet(kube, name, namespace)
    if body is None:
        await require_crds(kube)
        existing = [f"{f['metadata']['namespace']}/{f['metadata']['name']}" for f in await list_fleets(kube)]
        raise NotFound(
            f"No ProxyFleet {namespace}/{name}; fleets here: {', '.join(sorted(existing)) or 'none'}",
            reason="FleetNotFound",
            hint="reference/errors.md#fleet-not-found",
        )
    return parse_fleet(body)


async def find_fleet(kube: KubeClient, name: str, namespace: str) -> Object | None:
    """Read a ProxyFleet object, or None; NotFound where the CRDs are not installed is None too."""
    return await kube.find(PROXY_FLEETS, name, namespace)


async def list_fleets(kube: KubeClient, namespace: str | None = None) -> list[Object]:
    """Read all ProxyFleet objects; an empty list where the CRD is not installed."""
    try:
        return await kube.list_all(PROXY_FLEETS, namespace)
    except NotFound:
        return []


async def apply_fleet(kube: KubeClient, name: str, namespace: str, spec: FleetSpec) -> Fleet:
    """Create the fleet, or set the fields of its spec; a pin that the spec does not speak of stays."""
    fields = spec.to_json()
    if "pinned_revision" not in spec.model_fields_set:
        del fields["pinnedRevision"]
    body = {
        "apiVersion": PROXY_FLEETS.api_version,
        "kind": PROXY_FLEETS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": fields,
    }
    return parse_fleet(await kube.apply(PROXY_FLEETS, body))


async def update_fleet_status(
    kube: KubeClient, fleet: Fleet, change: Callable[[FleetStatus], FleetStatus]
) -> FleetStatus:
    """Apply a change to the newest status; nothing is written where it changes nothing."""
    for attempt in range(WRITE_ATTEMPTS):
        body = await kube.get(PROXY_FLEETS, fleet.name, fleet.namespace)
        before = FleetStatus.model_validate(body.get("status", {}))
        after = change(before)
        if after == before and body.get("status"):
            return after
        try:
            await kube.replace(PROXY_FLEETS, {**body, "status": after.to_json()}, "status")
            return after
        except Conflict:
            if attempt == WRITE_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


async def list_instances(kube: KubeClient, fleet: Fleet) -> dict[str, ProxyStatus]:
    """Read the status of every ProxyInstance of a fleet, by pod name."""
    items = await kube.list_all(PROXY_INSTANCES, fleet.namespace, labels=f"konverge.dev/fleet={fleet.name}")
    return {item["metadata"]["name"]: ProxyStatus.model_validate(item.get("status", {})) for item in items}


async def write_instance(kube: KubeClient, fleet: Fleet, proxy: Proxy, status: ProxyStatus) -> None:
    """Create or update a ProxyInstance; it is owned by its pod and goes with it.

    A condition whose status is as before keeps its time, and a visit that pushed nothing keeps the last push.
    """
    for attempt in range(WRITE_ATTEMPTS):
        body = await kube.find(PROXY_INSTANCES, proxy.name, fleet.namespace)
        if body is None:
            body = await create_instance(kube, fleet, proxy)
        fresh = carry_over(ProxyStatus.model_validate(body.get("status") or {}), status).to_json()
        if body.get("status") == fresh:
            return
        try:
            await kube.replace(PROXY_INSTANCES, {**body, "status": fresh}, "status")
            return
        except Conflict:
            if attempt == WRITE_ATTEMPTS - 1:
                raise


def carry_over(before: ProxyStatus, fresh: ProxyStatus) -> ProxyStatus:
    """Return the fresh status with what it does not know: since when a condition holds, and the last push."""
    held = {(c.type, c.status): c.last_transition_time for c in before.conditions}
    conditions = tuple(
        c.model_copy(update={"last_transition_time": held.get((c.type, c.status), c.last_transition_time)})
        for c in fresh.conditions
    )
    update: dict[str, object] = {"conditions": conditions}
    if fresh.last_push is None:
        update |= {"last_push": before.last_push, "push_milliseconds": before.push_milliseconds}
    return fresh.model_copy(update=update)


async def create_instance(kube: KubeClient, fleet: Fleet, proxy: Proxy) -> Object:
    """Create the ProxyInstance of a pod, without a status; what exists already is returned."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": proxy.name, "uid": proxy.uid}
    body = {
        "apiVersion": PROXY_INSTANCES.api_version,
        "kind": PROXY_INSTANCES.kind,
        "metadata": {
            "name": proxy.name,
            "namespace": fleet.namespace,
            "labels": {"konverge.dev/fleet": fleet.name},
            **({"ownerReferences": [owner]} if proxy.uid else {}),
        },
    }
    try:
        return await kube.create(PROXY_INSTANCES, body)
    except Conflict:
        return await kube.get(PROXY_INSTANCES, proxy.name, fleet.namespace)
