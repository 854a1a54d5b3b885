"""Credentials of consumers, from labelled Secrets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from konverge.translate.annotations import parse_bool, parse_int
from konverge.translate.drafts import Entity
from konverge.translate.problems import Object
from konverge.translate.service_tls import decode_data

LABEL = "konghq.com/credential"


@dataclass(frozen=True, slots=True)
class CredentialType:
    """How a type of credential is read and where it goes."""

    field: str
    """The list of the consumer."""
    copied: tuple[str, ...]
    required: tuple[str, ...]
    unique: str | None = None
    """The field that must differ between all credentials of the type."""


TYPES = {
    "key-auth": CredentialType("keyauth_credentials", ("key", "ttl"), ("key",), "key"),
    "basic-auth": CredentialType("basicauth_credentials", ("username", "password"), ("username",), "username"),
    "hmac-auth": CredentialType("hmacauth_credentials", ("username", "secret"), ("username",), "username"),
    "jwt": CredentialType("jwt_secrets", ("algorithm", "key", "rsa_public_key", "secret"), ("key",), "key"),
    "oauth2": CredentialType(
        "oauth2_credentials",
        ("name", "client_id", "client_secret", "client_type", "hash_secret", "redirect_uris"),
        ("client_id", "name"),
        "client_id",
    ),
    "acl": CredentialType("acls", ("group",), ("group",)),
    "mtls-auth": CredentialType("mtls_auth_credentials", ("subject_name",), ("subject_name",)),
}
DEFAULT_ALGORITHM = "HS256"


@dataclass(slots=True)
class Credential:
    """A credential, its type's name, and the value that must be unique, if any."""

    type_name: str
    entity: Entity
    unique: str | None

    def __repr__(self) -> str:
        return f"Credential({self.type_name!r})"


class CredentialError(ValueError):
    """A Secret cannot be used as a credential. The message never shows a value."""


def read_credential(secret: Object, complain: Callable[[str], None]) -> Credential:
    """Return the credential in a Secret; ``complain`` hears about single fields that are dropped.

    :raises CredentialError: the type is unknown or a required field is missing.
    """
    name = (secret["metadata"].get("labels") or {}).get(LABEL)
    kind = TYPES.get(name or "")
    if name is None or kind is None:
        raise CredentialError(f"has no label {LABEL} with a supported type")
    entity: Entity = dict(_read_fields(secret, ("id", *kind.copied)))
    _convert(entity, complain)
    missing = [field for field in kind.required if field not in entity]
    if missing:
        raise CredentialError(f"lacks {', '.join(missing)} for a credential of type {name}")
    if name == "jwt" and not entity.get("algorithm"):
        entity["algorithm"] = DEFAULT_ALGORITHM
    unique = entity[kind.unique] if kind.unique else None
    return Credential(name, entity, unique)


def _read_fields(secret: Object, wanted: tuple[str, ...]) -> dict[str, str]:
    """Return the wanted fields as text; names match case-insensitively, an exact match counts more."""
    found: dict[str, str] = {}
    for key, text in sorted((secret.get("data") or {}).items(), reverse=True):
        field = key.lower()
        if field not in wanted or (field in found and key != field):
            continue
        content = decode_data(text)
        if content is not None:
            found[field] = content.decode("utf-8", "replace")
    return found


def _convert(entity: Entity, complain: Callable[[str], None]) -> None:
    if "ttl" in entity:
        ttl = parse_int(entity["ttl"])
        if ttl is None:
            complain("ttl is no whole number and is dropped")
            del entity["ttl"]
        else:
            entity["ttl"] = ttl
    if "hash_secret" in entity:
        hashed = parse_bool(entity["hash_secret"])
        if hashed is None:
            complain("hash_secret is neither true nor false and counts as false")
        entity["hash_secret"] = bool(hashed)
    if "redirect_uris" in entity:
        entity["redirect_uris"] = entity["redirect_uris"].split(",")
