"""CA certificates from labelled Secrets and ConfigMaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from konverge.translate.entities import Entry, drop_empty
from konverge.translate.objects import created, tag
from konverge.translate.pem import Authority, PemError, read_authority
from konverge.translate.problems import Object, ObjectRef
from konverge.translate.service_tls import read_text
from konverge.translate.store import Key, Scope


@dataclass(slots=True)
class Authorities:
    """The CA certificates, and the next moment at which one of them expires."""

    entries: list[Entry] = field(default_factory=list)
    next_expiry: datetime | None = None
    broken: dict[str, str] = field(default_factory=dict)
    """CA id -> why there is no usable certificate of that id."""


def translate_authorities(scope: Scope, now: datetime | None) -> Authorities:
    """Return the CA certificates; of equal ids the oldest object counts."""
    found = sorted(scope.find("authorities"), key=lambda item: (created(item[1]), item[0][1], item[0][2], item[0][0]))
    result = Authorities()
    seen: set[str] = set()
    for key, value in found:
        identifier = read_text(value, key[0], "id")
        if not identifier:
            scope.report(key[0], value, "CaCertificateInvalid", "A CA certificate needs an id: it is left out.")
            continue
        if identifier in seen:
            message = f"The CA id {identifier} belongs to an older object: this one is left out."
            scope.report(key[0], value, "CaCertificateDuplicate", message)
            continue
        seen.add(identifier)
        try:
            authority = _read(key, value, now)
        except PemError as error:
            message = f"The CA certificate {identifier} {error}: it is left out."
            scope.report(key[0], value, "CaCertificateInvalid", message)
            result.broken[identifier] = message
            continue
        _note_expiry(result, authority)
        entity = {"id": identifier, "cert": authority.text, "tags": tag(key[0], value)}
        result.entries.append(Entry((authority.text, identifier), drop_empty(entity)))
    return result


def _read(key: Key, value: Object, now: datetime | None) -> Authority:
    text = read_text(value, key[0], "cert")
    if text is None:
        text = read_text(value, key[0], "ca.crt")
    if text is None:
        raise PemError("has neither cert nor ca.crt")
    authority = read_authority(text.encode("utf-8", "replace"))
    if now is not None and authority.expires <= now:
        raise PemError("is expired")
    return authority


def _note_expiry(result: Authorities, authority: Authority) -> None:
    if result.next_expiry is None or authority.expires < result.next_expiry:
        result.next_expiry = authority.expires


def report_broken_in_plugins(broken: Mapping[str, str], plugins: Mapping[ObjectRef, Object], scope: Scope) -> None:
    """Tell the plugins whose ``ca_certificates`` name a CA that cannot be used."""
    if not broken:
        return
    for ref, plugin in plugins.items():
        config = plugin.get("config")
        named = config.get("ca_certificates") if isinstance(config, dict) else None
        for identifier in named if isinstance(named, list) else ():
            if isinstance(identifier, str) and identifier in broken:
                scope.report_ref(ref, "CaCertificateInvalid", broken[identifier])
