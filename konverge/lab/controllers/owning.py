"""Controller references: which children belong to an owner, who is adopted, who is let go."""

from __future__ import annotations

from collections.abc import Iterable

from konverge.errors import NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import Object, Resource
from konverge.lab.controllers.caching import Cache
from konverge.lab.controllers.selecting import labels_of, matches


def controller_of(item: Object) -> Object | None:
    """Return the owner reference with ``controller: true``, or None."""
    references: list[Object] = item["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def is_controlled_by(item: Object, owner: Object) -> bool:
    """Tell whether ``owner`` is the controller of ``item``."""
    reference = controller_of(item)
    return reference is not None and reference["uid"] == owner["metadata"]["uid"]


def reference_to(owner: Object, resource: Resource) -> Object:
    """Return the controller reference to an owner of that kind."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


class Claiming:
    """Keeps the ownership of children in step with the owner's selector, as ControllerRefManager does.

    A child whose labels left the selector is released, an orphan whose labels match is adopted.
    """

    def __init__(self, client: KubeClient, owners: Resource, children: Cache) -> None:
        self._client = client
        self._owners = owners
        self._children = children

    async def claim(self, owner: Object, candidates: Iterable[Object]) -> list[Object]:
        """Return the children that are the owner's after adopting and releasing."""
        claimed = []
        for child in candidates:
            if await self._claim_one(owner, child):
                claimed.append(child)
        return claimed

    async def _claim_one(self, owner: Object, child: Object) -> bool:
        fits = matches(owner["spec"].get("selector"), labels_of(child))
        leaving = bool(owner["metadata"].get("deletionTimestamp"))
        if controller_of(child) is not None:
            if not is_controlled_by(child, owner):
                return False
            if not fits and not leaving:
                await self._release(owner, child)
            return fits
        if leaving or not fits or child["metadata"].get("deletionTimestamp"):
            return False
        return await self._adopt(owner, child)

    async def _adopt(self, owner: Object, child: Object) -> bool:
        # The cached owner may be gone and another one of its name may live: ask before adopting for it.
        fresh = await self._client.find(self._owners, owner["metadata"]["name"], owner["metadata"]["namespace"])
        if fresh is None or fresh["metadata"]["uid"] != owner["metadata"]["uid"]:
            return False
        if fresh["metadata"].get("deletionTimestamp"):
            return False
        return await self._change(child, reference_to(owner, self._owners))

    async def _release(self, owner: Object, child: Object) -> None:
        await self._change(child, {"$patch": "delete", "uid": owner["metadata"]["uid"]})

    async def _change(self, child: Object, reference: Object) -> bool:
        metadata = child["metadata"]
        patch = {"metadata": {"uid": metadata["uid"], "ownerReferences": [reference]}}
        try:
            changed = await self._client.patch(
                self._children.resource, metadata["name"], patch, metadata["namespace"], kind="strategic"
            )
        except NotFound:
            return False
        self._children.note(changed)
        return True
