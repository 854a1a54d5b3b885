"""Plays cert-manager on an API server: Certificates are signed, renewed on demand, and written as it writes them.

The CustomResourceDefinitions have the schema of cert-manager.io/v1 (release 1.21) for the fields that are used; a
field outside it is pruned, a wrong value refused, as there. tests/kube/test_real_cert_manager.py says how it behaves:
a Certificate whose leaf does not come says only that it is being issued (why stands in its CertificateRequest), one
that failed is left alone until it is ordered, and no leaf is backdated.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from konverge.errors import Conflict, KonvergeError, NotFound
from konverge.kube.client import KubeClient
from konverge.kube.resources import CERTIFICATE_REQUESTS, CERTIFICATES, CRDS, SECRETS, Object
from konverge.pki.authority import Authority, Identity, LeafRequest
from konverge.pki.inspecting import CLOCK_SKEW, to_pem

STRING = {"type": "string"}
STRINGS = {"type": "array", "items": STRING}
CONDITION = {
    "type": "object",
    "required": ["status", "type"],
    "properties": {
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "message": STRING,
        "observedGeneration": {"type": "integer", "format": "int64"},
        "reason": STRING,
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "type": STRING,
    },
}
SPEC = {
    "type": "object",
    "required": ["issuerRef", "secretName"],
    "properties": {
        "commonName": STRING,
        "dnsNames": STRINGS,
        "ipAddresses": STRINGS,
        "duration": STRING,
        "renewBefore": STRING,
        "secretName": STRING,
        "secretTemplate": {
            "type": "object",
            "properties": {
                "annotations": {"type": "object", "additionalProperties": STRING},
                "labels": {"type": "object", "additionalProperties": STRING},
            },
        },
        "issuerRef": {
            "type": "object",
            "required": ["name"],
            "properties": {"group": STRING, "kind": STRING, "name": STRING},
        },
        "privateKey": {
            "type": "object",
            "properties": {
                "algorithm": {"type": "string", "enum": ["RSA", "ECDSA", "Ed25519"]},
                "encoding": {"type": "string", "enum": ["PKCS1", "PKCS8"]},
                "rotationPolicy": {"type": "string", "enum": ["Never", "Always"]},
                "size": {"type": "integer"},
            },
        },
        "usages": {
            "type": "array",
            "items": {
                "type": "string",
                "enum": ["signing", "digital signature", "key encipherment", "server auth", "client auth"],
            },
        },
    },
}
STATUS: Object = {
    "type": "object",
    "properties": {
        "conditions": {
            "type": "array",
            "items": CONDITION,
            "x-kubernetes-list-map-keys": ["type"],
            "x-kubernetes-list-type": "map",
        },
        "lastFailureTime": {"type": "string", "format": "date-time"},
        "notAfter": {"type": "string", "format": "date-time"},
        "notBefore": {"type": "string", "format": "date-time"},
        "renewalTime": {"type": "string", "format": "date-time"},
        "revision": {"type": "integer"},
    },
}
REQUEST_STATUS = {"type": "object", "properties": {"conditions": STATUS["properties"]["conditions"]}}


def define(plural: str, kind: str, spec: Object, status: Object) -> Object:
    """Return the definition of one kind."""
    schema = {
        "type": "object",
        "properties": {
            "apiVersion": STRING,
            "kind": STRING,
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.cert-manager.io"},
        "spec": {
            "group": "cert-manager.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


DEFINITIONS = (
    define("certificates", "Certificate", SPEC, STATUS),
    define("certificaterequests", "CertificateRequest", {"type": "object"}, REQUEST_STATUS),
)
PURPOSES = {"server auth": "serverAuth", "client auth": "clientAuth"}


@dataclass
class CertManager:
    """Signs what is asked for.

    ``refuses`` is what a request says whose Issuer is missing or not ready, ``fails`` of one that cannot sign.
    """

    kube: KubeClient
    namespace: str
    authority: Authority = field(default_factory=lambda: Authority.create("issuer", datetime.now(UTC)))
    refuses: str = ""
    fails: str = ""
    purposes: tuple[str, ...] = ()
    """What leaves are good for, where that is not what was asked for."""
    signed: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Follow the Certificates of the namespace until cancelled."""
        while True:
            items, version = await self.kube.list_at(CERTIFICATES, self.namespace)
            for item in items:
                await self._reconcile(item)
            with suppress(Conflict):
                async with aclosing(self.kube.watch(CERTIFICATES, self.namespace, version=version)) as events:  # type: ignore[type-var]
                    async for kind, body in events:
                        if kind in ("ADDED", "MODIFIED"):
                            await self._reconcile(body)

    async def renew_all(self) -> None:
        """Sign everything anew, as when renewBefore has come."""
        for body in await self.kube.list_all(CERTIFICATES, self.namespace):
            await self._sign(body)

    async def _reconcile(self, body: Object) -> None:
        status = body.get("status") or {}
        order = next((c for c in status.get("conditions") or () if c["type"] == "Issuing"), {"status": "False"})
        ordered, failed = order["status"] == "True", status.get("lastFailureTime", "")
        if not ordered and (status.get("revision") or failed):
            return
        if self.fails or (failed and order["lastTransitionTime"] <= failed):  # as old as the one that failed
            await self._fail(body)
        elif self.refuses:
            await self._leave_pending(body)
        else:
            await self._sign(body)

    async def _leave_pending(self, body: Object) -> None:
        """The Certificate is being issued, and its request waits for the Issuer."""
        if await self._request(body, self.refuses):
            why = "Issuing certificate as Secret does not exist"
            await self._report(body, {}, _say("Ready", "False", why), _say("Issuing", "True", why))

    async def _fail(self, body: Object) -> None:
        """The request failed; what it said is repeated, and the next try is an hour away."""
        await self._request(body, self.fails)
        why = f"The certificate request has failed to complete and will be retried: {self.fails}"
        told = {"lastFailureTime": f"{datetime.now(UTC):%FT%TZ}"}
        await self._report(body, told, _say("Ready", "False", "No Secret"), _say("Issuing", "False", why))

    async def _request(self, body: Object, message: str) -> bool:
        """Write the request of a Certificate with what it says; False where it says so already."""
        metadata, revision = body["metadata"], (body.get("status") or {}).get("revision", 0) + 1
        owner = {"apiVersion": body["apiVersion"], "kind": "Certificate", "name": metadata["name"]}
        request = {
            "apiVersion": CERTIFICATE_REQUESTS.api_version,
            "kind": "CertificateRequest",
            "metadata": {
                "name": f"{metadata['name']}-{revision}",
                "namespace": self.namespace,
                "annotations": {"cert-manager.io/certificate-revision": str(revision)},
                "ownerReferences": [{**owner, "uid": metadata["uid"], "controller": True}],
            },
            "spec": {},
        }
        known = await self.kube.apply(CERTIFICATE_REQUESTS, request)
        conditions = [_say("Approved", "True", "Approved"), _say("Ready", "False", message)]
        before = [c["message"] for c in (known.get("status") or {}).get("conditions") or ()]
        if before == [c["message"] for c in conditions]:
            return False
        status = {"conditions": conditions}
        await self.kube.replace(CERTIFICATE_REQUESTS, {**known, "status": status}, subresource="status")
        return True

    async def _sign(self, body: Object) -> None:
        spec, now = body["spec"], datetime.now(UTC)
        purposes = self.purposes or tuple(PURPOSES[u] for u in spec["usages"] if u in PURPOSES)
        lifetime = timedelta(seconds=int(spec["duration"].removesuffix("s")))
        request = LeafRequest(spec["commonName"], purposes, tuple(spec.get("dnsNames") or ()))
        kinds = {"ECDSA": "ecdsa-p256", "Ed25519": "ed25519", "RSA": "rsa-3072"}
        key_type = kinds[spec["privateKey"]["algorithm"]]
        leaf = self.authority.issue(request, now + CLOCK_SKEW, lifetime=lifetime, key_type=key_type)
        await self._write(body, leaf)
        fresh = await self.kube.get(CERTIFICATES, body["metadata"]["name"], self.namespace)
        told = {
            "notAfter": f"{leaf.certificate.not_after:%FT%TZ}",
            "notBefore": f"{leaf.certificate.not_before:%FT%TZ}",
            "revision": (fresh.get("status") or {}).get("revision", 0) + 1,
        }
        (fresh.get("status") or {}).pop("lastFailureTime", None)
        message = "Certificate is up to date and has not expired"
        await self._report(fresh, told, _say("Ready", "True", message))
        self.signed.append(body["metadata"]["name"])

    async def _write(self, body: Object, leaf: Identity) -> None:
        spec = body["spec"]
        files = {
            "tls.crt": leaf.chain_pem,
            "tls.key": leaf.key.to_pem(),
            "ca.crt": to_pem(self.authority.identity.chain[:1]),
        }
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {
                "name": spec["secretName"],
                "namespace": self.namespace,
                "labels": spec["secretTemplate"]["labels"],
                "annotations": {"cert-manager.io/certificate-name": body["metadata"]["name"]},
            },
            "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
        }
        await self.kube.apply(SECRETS, secret)

    async def _report(self, body: Object, told: dict[str, Any], *conditions: Object) -> None:
        status = {**(body.get("status") or {}), **told, "conditions": list(conditions)}
        with suppress(NotFound, Conflict):
            await self.kube.replace(CERTIFICATES, {**body, "status": status}, subresource="status")


def _say(kind: str, status: str, message: str) -> Object:
    now = f"{datetime.now(UTC):%FT%TZ}"
    return {"type": kind, "status": status, "message": message, "reason": "Told", "lastTransitionTime": now}


@asynccontextmanager
async def run_cert_manager(kube: KubeClient, namespace: str) -> AsyncIterator[CertManager]:
    """Install the definitions and run the stand-in until the block ends."""
    for definition in DEFINITIONS:
        await kube.apply(CRDS, definition)
    manager = CertManager(kube, namespace)
    task = asyncio.create_task(manager.run())
    try:
        yield manager
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, KonvergeError):
            await task
