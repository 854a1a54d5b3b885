"""Plays cert-manager on an API server: Certificates are signed, renewed on demand, and written as it writes them.

The CustomResourceDefinition has the schema of cert-manager.io/v1 (release 1.16) for the fields that are used; a
field outside it is pruned, a wrong value refused, as there.
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
from konverge.kube.resources import CERTIFICATES, CRDS, SECRETS, Object
from konverge.pki.authority import Authority, Identity, LeafRequest
from konverge.pki.inspecting import to_pem

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
STATUS = {
    "type": "object",
    "properties": {
        "conditions": {
            "type": "array",
            "items": CONDITION,
            "x-kubernetes-list-map-keys": ["type"],
            "x-kubernetes-list-type": "map",
        },
        "notAfter": {"type": "string", "format": "date-time"},
        "notBefore": {"type": "string", "format": "date-time"},
        "renewalTime": {"type": "string", "format": "date-time"},
        "revision": {"type": "integer"},
    },
}
DEFINITION: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "certificates.cert-manager.io"},
    "spec": {
        "group": "cert-manager.io",
        "scope": "Namespaced",
        "names": {
            "kind": "Certificate",
            "listKind": "CertificateList",
            "plural": "certificates",
            "singular": "certificate",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "apiVersion": STRING,
                            "kind": STRING,
                            "metadata": {"type": "object"},
                            "spec": SPEC,
                            "status": STATUS,
                        },
                    }
                },
            }
        ],
    },
}
PURPOSES = {"server auth": "serverAuth", "client auth": "clientAuth"}


@dataclass
class CertManager:
    """Signs what is asked for. ``refuses`` stands for an Issuer that is not ready."""

    kube: KubeClient
    namespace: str
    authority: Authority = field(default_factory=lambda: Authority.create("issuer", datetime.now(UTC)))
    refuses: str = ""
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
        ordered = any(c["type"] == "Issuing" and c["status"] == "True" for c in status.get("conditions") or ())
        if self.refuses:
            if not any(c.get("message") == self.refuses for c in status.get("conditions") or ()):
                await self._report(body, {"type": "Ready", "status": "False", "message": self.refuses}, {})
        elif ordered or not status.get("revision"):
            await self._sign(body)

    async def _sign(self, body: Object) -> None:
        spec, now = body["spec"], datetime.now(UTC)
        purposes = self.purposes or tuple(PURPOSES[u] for u in spec["usages"] if u in PURPOSES)
        lifetime = timedelta(seconds=int(spec["duration"].removesuffix("s")))
        request = LeafRequest(spec["commonName"], purposes, tuple(spec.get("dnsNames") or ()))
        kinds = {"ECDSA": "ecdsa-p256", "Ed25519": "ed25519", "RSA": "rsa-3072"}
        key_type = kinds[spec["privateKey"]["algorithm"]]
        leaf = self.authority.issue(request, now, lifetime=lifetime, key_type=key_type)
        await self._write(body, leaf)
        fresh = await self.kube.get(CERTIFICATES, body["metadata"]["name"], self.namespace)
        told = {
            "notAfter": f"{leaf.certificate.not_after:%FT%TZ}",
            "notBefore": f"{leaf.certificate.not_before:%FT%TZ}",
            "revision": (fresh.get("status") or {}).get("revision", 0) + 1,
        }
        message = "Certificate is up to date and has not expired"
        await self._report(fresh, {"type": "Ready", "status": "True", "message": message}, told)
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

    async def _report(self, body: Object, condition: dict[str, Any], told: dict[str, Any]) -> None:
        ready = {"reason": "Told", "lastTransitionTime": f"{datetime.now(UTC):%FT%TZ}", **condition}
        with suppress(NotFound, Conflict):
            await self.kube.replace(
                CERTIFICATES,
                {**body, "status": {**(body.get("status") or {}), **told, "conditions": [ready]}},
                subresource="status",
            )


@asynccontextmanager
async def run_cert_manager(kube: KubeClient, namespace: str) -> AsyncIterator[CertManager]:
    """Install the definition and run the stand-in until the block ends."""
    await kube.apply(CRDS, DEFINITION)
    manager = CertManager(kube, namespace)
    task = asyncio.create_task(manager.run())
    try:
        yield manager
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, KonvergeError):
            await task
