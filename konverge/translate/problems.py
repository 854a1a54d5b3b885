"""What went wrong with which object, as data that is ready to become a Kubernetes Event.

The ingress controller reports all of them under the one reason ``KongConfigurationTranslationFailed``; here every
cause has its own stable reason, and the page named by the hint says what the object loses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON. Translation never changes one."""

PAGE = "reference/translation/problems.md"


class ObjectRef(NamedTuple):
    """Names one object of the cluster; ``namespace`` is "" for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str
    uid: str = ""
    api_version: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def key(self) -> tuple[str, str, str]:
        """The identity inside one snapshot: (kind, namespace, name)."""
        return (self.kind, self.namespace, self.name)


class Problem(NamedTuple):
    """An object that is left out, or used with less than it asks for."""

    object_ref: ObjectRef
    reason: str
    message: str
    hint: str


HINTS = {
    "Malformed": "malformed",
    "UnsupportedVersion": "unsupported-version",
    "BackendNotFound": "backend-not-found",
    "UnsupportedBackend": "unsupported-backend",
    "PortNotFound": "port-not-found",
    "RewriteNotAllowed": "rewrite",
    "RewriteMalformed": "rewrite",
    "AnnotationsDiffer": "annotations-differ",
    "ProtocolInvalid": "protocol-invalid",
    "OverrideNotFound": "override-not-found",
    "UpstreamPolicyDiffers": "upstream-policy",
    "UpstreamPolicyNotFound": "upstream-policy",
    "StickySessionsUnsupported": "sticky-sessions",
    "ClientCertificateInvalid": "client-certificate",
    "CaCertificatesInvalid": "ca-list",
    "BackendTlsPolicyConflict": "backend-tls-policy",
    "TlsSecretNotFound": "tls-secret",
    "TlsSecretInvalid": "tls-secret",
    "CaCertificateInvalid": "ca-certificate",
    "CaCertificateDuplicate": "ca-certificate",
    "PluginNotFound": "plugin-not-found",
    "PluginConfigInvalid": "plugin-config",
    "PluginReferenceNotGranted": "plugin-reference",
    "GlobalPluginDuplicate": "global-plugin",
    "ConsumerWithoutIdentity": "consumer-identity",
    "ConsumerGroupNotFound": "consumer-group",
    "CredentialInvalid": "credential",
    "CredentialConflict": "credential-conflict",
    "VaultInvalid": "vault",
    "VaultPrefixDuplicate": "vault",
    "CustomEntityInvalid": "custom-entity",
    "RouteInvalid": "route-invalid",
    "RouteUnsupported": "route-unsupported",
    "BackendRefRejected": "backend-ref-rejected",
    "FieldIgnored": "field-ignored",
    "AnnotationInvalid": "annotation-invalid",
    "SniClaimedTwice": "sni-claimed-twice",
    "CertificateRefsUnsupported": "gateway-certificate",
    "ExcludedByFallback": "fallback",
    "RestoredByFallback": "fallback",
}
"""Reason -> anchor on the page of problems."""


def refer(kind: str, value: Object, api_version: str = "") -> ObjectRef:
    """Return the reference of an object whose metadata is known to be well-formed."""
    metadata = value.get("metadata") or {}
    return ObjectRef(
        kind,
        metadata.get("namespace") or "",
        metadata.get("name") or "",
        metadata.get("uid") or "",
        api_version or value.get("apiVersion") or "",
    )


def describe(ref: ObjectRef, reason: str, message: str) -> Problem:
    """Return the problem with its page; the reason must be one of :data:`HINTS`."""
    return Problem(ref, reason, message, f"{PAGE}#{HINTS[reason]}")
