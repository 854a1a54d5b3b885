"""cert-manager as the issuer of a fleet: Certificate objects out, Secrets in (API: cert-manager.io/v1).

What proxies mount is never a Secret of cert-manager: it exchanges leaf, key and authority in one write whenever
it likes, while a fleet needs trust first and leaves later. So its Secrets are a source that a rotation follows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from typing import Any, cast

from konverge.errors import Conflict, Invalid, KonvergeError, NotFound, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.resources import CERTIFICATE_REQUESTS, CERTIFICATES, SECRETS, Object
from konverge.model.fleet import Fleet
from konverge.operate.clock import Clock, utc_now
from konverge.pki.authority import CONTROLLER, LONGEST_NAME, PROXIES, Identity, LeafRequest
from konverge.pki.bundle import TrustBundle
from konverge.pki.files import CERTIFICATE_FILE
from konverge.pki.inspecting import RENEWAL_POINT, describe, parse_pem
from konverge.pki.issuing import GivenIssuer, Issuer, read_issued
from konverge.pki.keys import RSA_BITS, KeyType
from konverge.pki.keystore import SecretStore

"""What cert-manager makes of a Certificate for each leaf; why none comes stands in its conditions alone."""
ISSUE_SECONDS = 180.0
"""How long a leaf may take; an issuer inside the cluster needs seconds, one that asks another needs minutes."""
USAGES = {"clientAuth": "client auth", "serverAuth": "server auth"}
KEYS: dict[KeyType, dict[str, Any]] = {
    KeyType.ECDSA: {"algorithm": "ECDSA", "size": 256},
    KeyType.ED25519: {"algorithm": "Ed25519"},
    KeyType.RSA: {"algorithm": "RSA", "size": RSA_BITS},
}
HINT = "howto/issuers.md#cert-manager"


class CertManagerIssuer(Issuer):
    """Asks for leaves by Certificate objects and reads what cert-manager writes; all of it is checked as given."""

    owns_authority = False

    def __init__(
        self,
        kube: KubeClient,
        fleet: Fleet,
        owner: Object | None,
        clock: Clock = utc_now,
        *,
        timeout: float = ISSUE_SECONDS,
    ) -> None:
        self._kube = kube
        self._fleet = fleet
        self._owner = owner
        self._clock = clock
        self._timeout = timeout
        self._names = issued_names(fleet)
        self._given = GivenIssuer(SecretStore(kube, fleet.namespace), self._names, clock)

    async def issue(self, request: LeafRequest) -> Identity:
        """Return a leaf that was not there before; Unavailable tells what cert-manager says where none comes."""
        before, failed = await self._find_leaf(request), await self._has_failed(request)
        await self._apply(request)
        if before or failed:
            await self._order(request)
        return await self._await_leaf(request, before)

    async def offer(self, request: LeafRequest) -> Identity | None:
        """Return the leaf that cert-manager keeps fresh; None until the first has been asked for and has come."""
        return await self._given.offer(request)

    async def trust(self) -> TrustBundle:
        """Return the authorities that came with the leaves."""
        return await self._given.trust()

    async def _apply(self, request: LeafRequest) -> None:
        try:
            await self._kube.apply(CERTIFICATES, build_certificate(self._fleet, request, self._owner))
        except NotFound:
            raise NotFound(
                "The cluster does not serve cert-manager.io/v1 Certificates: cert-manager is not installed",
                reason="CertManagerMissing",
                hint=HINT,
            ) from None

    async def _has_failed(self, request: LeafRequest) -> bool:
        """Tell whether the last leaf failed: without an order cert-manager does nothing then for 1 to 32 hours."""
        body = await self._kube.find(CERTIFICATES, self._names[request.role], self._fleet.namespace)
        return bool(((body or {}).get("status") or {}).get("lastFailureTime"))

    async def _order(self, request: LeafRequest) -> None:
        """Ask for another leaf as ``cmctl renew`` does: by the condition Issuing in the status."""
        for _ in range(5):
            body = await self._kube.get(CERTIFICATES, self._names[request.role], self._fleet.namespace)
            status = body.setdefault("status", {})
            conditions = [c for c in status.get("conditions") or () if c["type"] != "Issuing"]
            if any(c["type"] == "Issuing" and c["status"] == "True" for c in status.get("conditions") or ()):
                return
            status["conditions"] = [*conditions, self._issuing(body)]
            with contextlib.suppress(Conflict):
                await self._kube.replace(CERTIFICATES, body, subresource="status")
                return
        raise Conflict(f"Certificate {self._place(request)} keeps changing", reason="Conflict")

    def _issuing(self, body: Object) -> Object:
        return {
            "type": "Issuing",
            "status": "True",
            "reason": "ManuallyTriggered",
            "message": "Certificate re-issuance manually triggered",
            "lastTransitionTime": _after_failure(body, self._clock()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "observedGeneration": body["metadata"].get("generation", 1),
        }

    async def _await_leaf(self, request: LeafRequest, before: str) -> Identity:
        """Watch the Secret until it holds a fitting leaf other than ``before``."""
        fault = "its Secret has not been written"
        try:
            async with (
                asyncio.timeout(self._timeout),
                contextlib.aclosing(self._follow(self._names[request.role])) as secrets,
            ):
                async for secret in secrets:
                    found, fault = self._judge(secret, request, before)
                    if found is None and (pause := self._count_down(secret)):
                        await asyncio.sleep(pause)
                        found, fault = self._judge(secret, request, before)
                    if found is not None:
                        await self._own(secret)
                        return found
        except TimeoutError:
            pass
        raise Unavailable(
            f"Certificate {self._place(request)}: no leaf within {self._timeout:.0f} s: {fault};"
            f" cert-manager says: {await self._ask_why(request)}",
            reason="IssuerSlow",
            hint=HINT,
        )

    def _judge(self, secret: Object, request: LeafRequest, before: str) -> tuple[Identity | None, str]:
        """Return the leaf of a Secret, or why it is not the one that is waited for."""
        try:
            found = read_issued(_files(secret), request, self._clock(), f"Secret {self._place(request)}").identity
        except Invalid as error:
            return None, error.message
        if found.certificate.fingerprint == before:
            return None, "its Secret still holds the leaf of before"
        return found, ""

    def _count_down(self, secret: Object) -> float:
        """Return the seconds until a leaf begins: cert-manager backdates none, and our clock may be behind."""
        try:
            leaf = describe(parse_pem(_files(secret).get(CERTIFICATE_FILE, b""), CERTIFICATE_FILE)[0])
        except Invalid:
            return 0.0
        return max(0.0, (leaf.not_before - self._clock()).total_seconds())

    async def _follow(self, name: str) -> AsyncGenerator[Object, None]:
        """Yield a Secret as it is and at each change; watches that end are taken up again."""
        fields = f"metadata.name={name}"
        while True:
            items, version = await self._kube.list_at(SECRETS, self._fleet.namespace, fields=fields)
            for item in items:
                yield item
            try:
                watch = self._kube.watch(SECRETS, self._fleet.namespace, version=version, fields=fields)
                async with contextlib.aclosing(cast("AsyncGenerator[tuple[str, Object], None]", watch)) as events:
                    async for kind, body in events:
                        if kind in ("ADDED", "MODIFIED"):
                            yield body
            except Conflict:
                continue  # the version is too old by now

    async def _find_leaf(self, request: LeafRequest) -> str:
        """Return the fingerprint of the leaf that is there; "" where there is none or it does not fit."""
        try:
            offered = await self._given.offer(request)
        except Invalid:
            return ""
        return offered.certificate.fingerprint if offered else ""

    async def _own(self, secret: Object) -> None:
        """Let the Secret go with the fleet; cert-manager leaves it behind unless it is told otherwise."""
        owners = secret["metadata"].get("ownerReferences") or []
        if self._owner is None or any(owner["uid"] == self._owner["uid"] for owner in owners):
            return
        patch = {"metadata": {"ownerReferences": [*owners, self._owner]}}
        with contextlib.suppress(KonvergeError):
            await self._kube.patch(SECRETS, secret["metadata"]["name"], patch, self._fleet.namespace)

    async def _ask_why(self, request: LeafRequest) -> str:
        try:
            body = await self._kube.get(CERTIFICATES, self._names[request.role], self._fleet.namespace)
        except KonvergeError as error:
            return error.message
        told = [*_read_conditions(body), *await self._ask_request(body)]
        return "; ".join(told) or "nothing; is it running?"

    async def _ask_request(self, certificate: Object) -> list[str]:
        """Return what the newest request of a Certificate says; the Certificate repeats only what failed for good."""
        try:
            found = await self._kube.list_all(CERTIFICATE_REQUESTS, self._fleet.namespace)
        except KonvergeError as error:
            return [f"its CertificateRequest cannot be read: {error.message}"]
        uid = certificate["metadata"]["uid"]
        own = [r for r in found if any(o["uid"] == uid for o in r["metadata"].get("ownerReferences") or ())]
        newest = max(own, key=_read_revision, default=None)
        if newest is None:
            return []
        return [f"{newest['metadata']['name']}: {told}" for told in _read_conditions(newest, without=("Approved",))]

    def _place(self, request: LeafRequest) -> str:
        return f"{self._fleet.namespace}/{self._names[request.role]}"


def issued_names(fleet: Fleet) -> dict[str, str]:
    """Return role to the Secret in which an issuer that is not ours leaves the leaf."""
    return {CONTROLLER: fleet.issued_controller_secret, PROXIES: fleet.issued_proxy_secret}


def build_certificate(fleet: Fleet, request: LeafRequest, owner: Object | None) -> Object:
    """Return the Certificate for a leaf; a new key each time, renewed after two thirds of the lifetime."""
    identity, name = fleet.spec.identity, issued_names(fleet)[request.role]
    labels = {"konverge.dev/fleet": fleet.name, "app.kubernetes.io/managed-by": "konverge"}
    metadata: Object = {"name": name, "namespace": fleet.namespace, "labels": labels}
    if owner:
        metadata["ownerReferences"] = [owner]
    lifetime = timedelta(hours=identity.leaf_hours)
    spec: Object = {
        "secretName": name,
        "secretTemplate": {"labels": labels},
        "commonName": request.name[:LONGEST_NAME],
        "duration": _duration(lifetime),
        "renewBefore": _duration(lifetime * (1 - RENEWAL_POINT)),
        "usages": ["digital signature", *(USAGES[purpose] for purpose in request.purposes)],
        "privateKey": {**KEYS[KeyType(identity.key_type)], "encoding": "PKCS8", "rotationPolicy": "Always"},
        "issuerRef": {
            "name": identity.issuer.name,
            "kind": identity.issuer.issuer_kind,
            "group": CERTIFICATES.group,
        },
    }
    if request.dns_names:
        spec["dnsNames"] = list(request.dns_names)
    if request.ip_addresses:
        spec["ipAddresses"] = list(request.ip_addresses)
    return {
        "apiVersion": CERTIFICATES.api_version,
        "kind": CERTIFICATES.kind,
        "metadata": metadata,
        "spec": spec,
    }


def _read_conditions(body: Object, without: tuple[str, ...] = ()) -> list[str]:
    conditions = [c for c in (body.get("status") or {}).get("conditions") or () if c["type"] not in without]
    return [f"{c['type']} {c['status']}: {c.get('message') or c.get('reason', '')}" for c in conditions]


def _read_revision(request: Object) -> int:
    return int((request["metadata"].get("annotations") or {}).get("cert-manager.io/certificate-revision", 0))


def _after_failure(certificate: Object, now: datetime) -> datetime:
    """Return the moment of an order: now, but after the last failure, which would end the order at once otherwise."""
    failed = (certificate.get("status") or {}).get("lastFailureTime")
    return max(now, datetime.fromisoformat(failed) + timedelta(seconds=1)) if failed else now


def _duration(length: timedelta) -> str:
    """Return a length of time as Go writes it."""
    return f"{round(length.total_seconds())}s"


def _files(secret: Object) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
