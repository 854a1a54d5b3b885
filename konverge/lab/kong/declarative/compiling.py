"""From a document to entities: every default filled in, every reference an id, every timestamp set."""

from __future__ import annotations

import copy
import hashlib
import re
import secrets
import string
from typing import Any

from konverge.lab.kong.declarative.failures import Crash, Refusal
from konverge.lab.kong.declarative.resolving import Index, check_references, check_unique_fields, index_document
from konverge.lab.kong.declarative.validating import ANNOTATIONS, validate_document
from konverge.lab.kong.schema.fields import EntitySchema, Field
from konverge.lab.kong.schema.filling import fill
from konverge.lab.kong.schema.pem import digest_certificate
from konverge.lab.kong.schema.registry import Registry

Entities = dict[str, dict[str, dict[str, Any]]]
"""Entity type -> id -> entity."""

ALPHABET = string.ascii_letters + string.digits
PLAIN_PATH = re.compile(r"^[a-zA-Z0-9.\-_~/%]*$")


def compile_document(document: Any, registry: Registry, now: float) -> Entities:
    """Return the entities of a document.

    Raises Refusal with the first phase that fails (schema, uniqueness, references), and Crash where a real Kong
    answers 500.
    """
    if isinstance(document, list):
        if document:
            raise Crash("the document is a list")
        document = {}
    document = copy.deepcopy(document)
    modernise(document)
    errors = validate_document(document, registry)
    if errors:
        raise Refusal(errors, document)
    index, errors = index_document(document, registry)
    errors = errors or check_references(index) or check_unique_fields(index, registry)
    if errors:
        raise Refusal(errors, document)
    hash_passwords = document.get("_transform") is not False
    return {
        kind: {
            item_id: _finish(registry.entities[kind], item, index, registry, now, hash_passwords)
            for item_id, item in entities.items()
        }
        for kind, entities in index.by_id.items()
    }


def modernise(document: dict[str, Any]) -> None:
    """Bring formats 1.1 and 2.1 up to 3.0: a path with anything unusual in it was a regular expression there."""
    if document.get("_format_version") not in ("1.1", "2.1"):
        return
    services = document.get("services")
    for section in (document, *(services if isinstance(services, list) else ())):
        routes = section.get("routes") if isinstance(section, dict) else None
        for route in routes if isinstance(routes, list) else ():
            paths = route.get("paths") if isinstance(route, dict) else None
            if isinstance(paths, list):
                route["paths"] = [_modernise_path(path) for path in paths]


def _modernise_path(path: Any) -> Any:
    return path if not isinstance(path, str) or PLAIN_PATH.match(path) else "~" + path


def _finish(
    schema: EntitySchema, item: dict[str, Any], index: Index, registry: Registry, now: float, hash_passwords: bool
) -> dict[str, Any]:
    finished = complete(schema, item, registry)
    for name, field in schema.fields.items():
        if field.kind == "foreign" and finished.get(name) is not None:
            target = index.find(field.reference, finished[name])
            finished[name] = {"id": target["id"]} if target is not None else finished[name]
    stamp(schema, finished, now)
    derive(schema, finished, hash_passwords)
    return finished


def complete(schema: EntitySchema, item: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """Return an entity with shorthands expanded, every default in place and what Kong makes up made up."""
    children = registry.children[schema.name]
    own = {
        name: value
        for name, value in item.items()
        if name not in ANNOTATIONS
        and (name in schema.fields or (name not in children and name not in schema.shorthands))
    }
    for name, expand in schema.shorthands.items():
        if item.get(name) is not None:
            for key, value in expand(item[name])[0].items():
                own.setdefault(key, value)
    fields = schema.fields
    if schema.name == "plugins":
        fields = {**fields, "config": registry.plugin_field(item["name"]) or Field("any")}
        own.setdefault("config", {})
    finished = fill(fields, own, nulls=True)
    for name, field in fields.items():
        if field.auto == "random" and finished.get(name) is None:
            finished[name] = "".join(secrets.choice(ALPHABET) for _ in range(32))
    return finished


def stamp(schema: EntitySchema, entity: dict[str, Any], now: float) -> None:
    """Set the timestamps; a given created_at stays, updated_at never does."""
    moment: float = round(now, 3) if schema.milliseconds else int(now)
    if entity.get("created_at") is None:
        entity["created_at"] = moment
    if "updated_at" in schema.fields:
        entity["updated_at"] = moment


def derive(schema: EntitySchema, entity: dict[str, Any], hash_passwords: bool) -> None:
    """Set what follows from other fields: the digest of a CA certificate, the hash of a password."""
    if schema.name == "ca_certificates":
        entity["cert_digest"] = digest_certificate(entity["cert"])
    elif schema.name == "basicauth_credentials" and hash_passwords:
        salted = str(entity["password"]) + str((entity.get("consumer") or {}).get("id", ""))
        # Kong's own scheme (kong/plugins/basic-auth/crypto.lua).
        entity["password"] = hashlib.sha1(salted.encode()).hexdigest()  # noqa: S324
