"""Certificates from TLS sections, client certificates and Gateway listeners, merged by their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from konverge.translate.drafts import Claim, Entity
from konverge.translate.entities import Entry, drop_empty
from konverge.translate.gateway.listeners import list_listener_certificates
from konverge.translate.objects import created, namespace_of, tag
from konverge.translate.pem import check_pair
from konverge.translate.problems import Object, ObjectRef
from konverge.translate.service_tls import read_secret
from konverge.translate.store import Scope

Identity = tuple[str, str]


@dataclass(slots=True)
class PlacedClaim:
    """A claim and the object that makes it."""

    claim: Claim
    parent: ObjectRef


@dataclass(slots=True)
class Certificates:
    """The certificate entries, and the id under which each Secret's certificate is found."""

    entries: list[Entry] = field(default_factory=list)
    ids: dict[Identity, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Wanted:
    """A Secret that is asked for: by whom, and for which host names."""

    hosts: list[str] = field(default_factory=list)
    parents: dict[ObjectRef, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Merged:
    secrets: list[Object] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


def translate_certificates(
    claims: Sequence[PlacedClaim], clients: Iterable[tuple[Identity, ObjectRef]], scope: Scope
) -> Certificates:
    """Return the certificates; ``claims`` are in the order in which host names are given away."""
    wanted: dict[Identity, _Wanted] = {}
    taken: set[str] = set()
    for placed in claims:
        claim = placed.claim
        entry = wanted.setdefault((claim.namespace, claim.secret), _Wanted())
        entry.parents[placed.parent] = None
        for host in claim.hosts:
            if host not in taken:
                taken.add(host)
                entry.hosts.append(host)
    for identity, parent in clients:
        wanted.setdefault(identity, _Wanted()).parents[parent] = None
    merged: dict[tuple[bytes, bytes], _Merged] = {}
    for identity, entry in wanted.items():
        _add(merged, identity, entry.hosts, list(entry.parents), scope)
    for identity, host, parent in list_listener_certificates(scope):
        _add(merged, identity, [host], [parent], scope)
    return _finish(merged, scope)


def _add(
    merged: dict[tuple[bytes, bytes], _Merged],
    identity: Identity,
    hosts: list[str],
    parents: list[ObjectRef],
    scope: Scope,
) -> None:
    secret = scope.get("Secret", *identity)
    name = f"{identity[0]}/{identity[1]}"
    if secret is None:
        for parent in parents:
            scope.report_ref(parent, "TlsSecretNotFound", f"TLS Secret {name} does not exist.")
        return
    certificate = (read_secret(secret, "tls.crt") or b"").strip()
    key = (read_secret(secret, "tls.key") or b"").strip()
    cause = "tls.crt or tls.key is missing"
    if certificate and key:
        cause = check_pair(certificate, key) or ""
    if cause:
        message = f"TLS Secret {name} cannot be used: {cause}."
        scope.report("Secret", secret, "TlsSecretInvalid", message)
        for parent in parents:
            scope.report_ref(parent, "TlsSecretInvalid", message)
        return
    found = merged.setdefault((certificate, key), _Merged())
    if all(other is not secret for other in found.secrets):
        found.secrets.append(secret)
    found.hosts += hosts


def _finish(merged: dict[tuple[bytes, bytes], _Merged], scope: Scope) -> Certificates:
    result = Certificates()
    owners: dict[str, str] = {}
    for (certificate, key), item in merged.items():
        oldest = min(item.secrets, key=lambda value: (created(value), _uid(value)))
        identifier = _uid(oldest)
        for secret in item.secrets:
            result.ids[(namespace_of(secret), secret["metadata"]["name"])] = identifier
        text = certificate.decode("utf-8", "replace")
        hosts = []
        for host in dict.fromkeys(item.hosts):
            if owners.setdefault(host, text) == text:
                hosts.append(host)
                continue
            message = f"The server name {host} already belongs to another certificate: this one loses it."
            scope.report("Secret", oldest, "SniClaimedTwice", message)
        entity: Entity = {
            "cert": text,
            "key": key.decode("utf-8", "replace"),
            "tags": tag("Secret", item.secrets[0]),
            "snis": [{"name": host, "certificate": {"id": identifier}} for host in sorted(hosts)],
        }
        # An id is printed even where the Secret has no uid.
        result.entries.append(Entry((text, identifier), {**drop_empty(entity), "id": identifier}))
    return result


def _uid(secret: Object) -> str:
    uid: str = secret["metadata"].get("uid") or ""
    return uid
