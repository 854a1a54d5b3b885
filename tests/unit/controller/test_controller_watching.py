"""Only what concerns the controller wakes it, under the right key; the number of watches is fixed."""

from __future__ import annotations

from typing import Any

from konverge.controller.queueing import Key
from konverge.controller.watching import Sources
from konverge.kube.resources import (
    ENDPOINT_SLICES,
    INGRESSES,
    PROXY_FLEETS,
    SEALED_IDENTITIES,
    SECRETS,
    SOURCES,
)
from tests.unit.kube.virtual_time import run_virtually


class Queue:
    """Counts what wakes the controller, by key."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def add(self, key: Key) -> None:
        self.keys.append(key)


def sources() -> tuple[Sources, Queue]:
    queue: Any = Queue()
    kube: Any = object()
    return Sources(kube, "shop", "ns", queue), queue


def fleet(generation: int, **status: Any) -> dict[str, Any]:
    metadata = {"name": "shop", "namespace": "ns", "generation": generation, "resourceVersion": str(len(status))}
    return {"metadata": metadata, "status": status}


def test_there_is_one_watch_per_kind_whatever_the_number_of_proxies() -> None:
    found, _ = sources()
    caches = list(found.all())
    assert [cache.resource for cache in caches] == [*SOURCES, PROXY_FLEETS, SECRETS, SEALED_IDENTITIES]
    assert next(c for c in caches if c.resource == PROXY_FLEETS).fields == "metadata.name=shop"
    first, second = (c for c in caches if c.resource == SECRETS)
    assert "!konverge.dev/fleet" in first.labels, "our own revisions must not wake us"
    assert second.namespace == "ns"
    assert second.labels == "konverge.dev/fleet=shop,!konverge.dev/revision,!konverge.dev/last-valid"


def test_our_own_status_does_not_wake_us_but_a_new_spec_does() -> None:
    found, queue = sources()
    for body in (fleet(1), fleet(1, currentRevision=1), fleet(1, currentRevision=2), fleet(2), fleet(2, a=1)):
        found.fleets._take("MODIFIED", body)
    assert queue.keys == [*Key, *Key]


def test_every_source_wakes_us_and_is_handed_on() -> None:
    found, queue = sources()
    ingress = next(c for c in found.all() if c.resource == INGRESSES)
    ingress._take("ADDED", {"metadata": {"name": "a", "namespace": "x"}})
    ingress._take("DELETED", {"metadata": {"name": "a", "namespace": "x"}})
    assert queue.keys == [Key.SOURCES, Key.SOURCES]
    ingress._take("ADDED", {"metadata": {"name": "b", "namespace": "x"}})
    assert [body["metadata"]["name"] for body in found.objects()] == ["b"]


def test_an_identity_that_changes_is_no_source() -> None:
    found, queue = sources()
    for cache in found.identities:
        cache._take("MODIFIED", {"metadata": {"name": "shop-controller-identity", "namespace": "ns"}})
    assert queue.keys == [Key.IDENTITY, Key.IDENTITY], "sealed or not"
    assert list(found.objects()) == []


def test_proxies_are_looked_for_in_the_namespace_of_the_fleet_only() -> None:
    found, queue = sources()
    slices = next(c for c in found.all() if c.resource == ENDPOINT_SLICES)
    for name, namespace, service in (
        ("a", "ns", "shop-gateway-admin"),
        ("b", "other", "shop-gateway-admin"),
        ("c", "ns", "web"),
    ):
        labels = {"kubernetes.io/service-name": service}
        slices._take("ADDED", {"metadata": {"name": name, "namespace": namespace, "labels": labels}})
    assert [piece["metadata"]["name"] for piece in found.slices("shop-gateway-admin")] == ["a"]
    assert queue.keys.count(Key.PROXIES) == 1
    assert queue.keys.count(Key.SOURCES) == 3


def test_it_is_synced_when_every_kind_was_listed_once() -> None:
    async def story() -> None:
        found, _ = sources()
        for cache in found.all():
            assert not found.synced
            cache.synced.set()
        await found.wait_synced()
        assert found.synced

    run_virtually(story())
