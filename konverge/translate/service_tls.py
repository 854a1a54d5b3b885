"""TLS from Kong to a Service: BackendTLSPolicy, client certificates, and the CAs to trust."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error

from konverge.translate.annotations import (
    HOST_HEADER,
    PROTOCOL,
    TLS_VERIFY,
    TLS_VERIFY_DEPTH,
    parse_bool,
    parse_int,
)
from konverge.translate.drafts import Entity
from konverge.translate.endpoints import Resolved
from konverge.translate.objects import split_list
from konverge.translate.problems import Object
from konverge.translate.store import Scope

CLIENT_CERTIFICATE = "konghq.com/client-cert"
CA_SECRETS = "konghq.com/ca-certificates-secrets"
CA_CONFIG_MAPS = "konghq.com/ca-certificates-configmaps"

PLAIN = frozenset({"http", "grpc", "tcp", "tls_passthrough", "udp", "ws"})
"""Protocols to an upstream that Kong does not speak TLS on."""

_LINES = re.compile(r"[\r\n]")


def decode_data(text: str | None) -> bytes | None:
    """Return the bytes of a value in ``Secret.data``; None where it is absent or no base64."""
    if text is None:
        return None
    try:
        return b64decode(_LINES.sub("", text), validate=True)
    except (Base64Error, ValueError):
        return None


def read_secret(secret: Object, key: str) -> bytes | None:
    """Return one value of a Secret."""
    return decode_data((secret.get("data") or {}).get(key))


def read_text(value: Object, kind: str, key: str) -> str | None:
    """Return one value of a Secret or ConfigMap as text; None where it is absent or not UTF-8."""
    if kind == "ConfigMap":
        text: str | None = (value.get("data") or {}).get(key)
        return text
    content = read_secret(value, key)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


def secure(entity: Entity, resolved: Resolved, scope: Scope) -> tuple[str, str] | None:
    """Apply the TLS settings of one Service; returns the Secret of its client certificate.

    A BackendTLSPolicy is laid over ``resolved.annotations``, where the later rules read it.
    """
    _apply_policy(resolved, scope)
    annotations = resolved.annotations
    if not annotations:
        return None
    secrets, maps = split_list(annotations.get(CA_SECRETS)), split_list(annotations.get(CA_CONFIG_MAPS))
    if secrets or maps:
        _trust(entity, resolved, secrets, maps, scope)
    if name := annotations.get(CLIENT_CERTIFICATE):
        return _find_client_certificate(resolved, name, scope)
    return None


def _speaks_tls(resolved: Resolved) -> bool:
    return (resolved.annotations.get(PROTOCOL) or "http") not in PLAIN


def _apply_policy(resolved: Resolved, scope: Scope) -> None:
    namespace, name = resolved.identity
    policies = scope.find("policies", namespace, name)
    if not policies:
        return
    if len(policies) > 1:
        message = f"{len(policies)} BackendTLSPolicies name Service {namespace}/{name}: none is used."
        scope.report("Service", resolved.service, "BackendTlsPolicyConflict", message)
        return
    spec = policies[0][1].get("spec") or {}
    validation = spec.get("validation") or {}
    changed = dict(resolved.annotations)
    changed[TLS_VERIFY] = "true"
    changed[HOST_HEADER] = validation.get("hostname") or ""
    changed[PROTOCOL] = "https"
    for kind, key in (("ConfigMap", CA_CONFIG_MAPS), ("Secret", CA_SECRETS)):
        names = [
            reference.get("name") or ""
            for reference in validation.get("caCertificateRefs") or ()
            if reference.get("kind") == kind
        ]
        if names:
            changed[key] = ",".join(split_list(changed.get(key)) + names)
    depth = (spec.get("options") or {}).get("tls-verify-depth") or ""
    number = parse_int(depth)
    if number is not None and number >= 0:
        changed[TLS_VERIFY_DEPTH] = depth
    resolved.annotations = changed


def _find_client_certificate(resolved: Resolved, name: str, scope: Scope) -> tuple[str, str] | None:
    namespace = resolved.identity[0]
    cause = ""
    if not _speaks_tls(resolved):
        cause = "the protocol of the Service carries no TLS"
    elif scope.get("Secret", namespace, name) is None:
        cause = f"Secret {namespace}/{name} does not exist"
    if not cause:
        return (namespace, name)
    scope.report("Service", resolved.service, "ClientCertificateInvalid", f"{CLIENT_CERTIFICATE}: {cause}.")
    return None


def _trust(entity: Entity, resolved: Resolved, secrets: list[str], maps: list[str], scope: Scope) -> None:
    verify = parse_bool(resolved.annotations.get(TLS_VERIFY) or "")
    if not verify or not _speaks_tls(resolved):
        cause = "needs a protocol with TLS" if verify else f'needs {TLS_VERIFY}: "true"'
        scope.report("Service", resolved.service, "CaCertificatesInvalid", f"A list of CA certificates {cause}.")
        return
    namespace = resolved.identity[0]
    for kind, names in (("Secret", secrets), ("ConfigMap", maps)):
        for name in names:
            found = scope.get(kind, namespace, name)
            identifier = read_text(found, kind, "id") if found is not None else None
            if identifier:
                entity["ca_certificates"] = [*entity.get("ca_certificates", ()), identifier]
                continue
            message = f"{kind} {namespace}/{name} of the CA certificates has no id or does not exist."
            scope.report("Service", resolved.service, "CaCertificatesInvalid", message)
            if found is not None:
                scope.report(kind, found, "CaCertificatesInvalid", message)
