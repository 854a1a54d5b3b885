"""What the server itself writes into ``metadata``, and which names it accepts."""

from __future__ import annotations

import random
import re
import uuid
from typing import Any

from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.statuses import Cause, bad_request, denied, immutable, invalid, required, wrong
from konverge.lab.apiserver.store import Object

LABEL = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
SERVICE_NAME = re.compile(r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$")
QUALIFIED = re.compile(r"^([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)$")
VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes leaves out vowels and digits that make words or look alike."""
MAX_ANNOTATIONS = 256 * 1024

RFC1123_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
RFC1123_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_NAMES = frozenset({"Namespace", "Service"})
FREE_NAMES = frozenset({"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})


def stamp_new(obj: Object, request: Request, stamp: str) -> None:
    """Give a new object its name, namespace, uid and time; 400 where the namespace contradicts the path."""
    metadata = obj["metadata"]
    kind = request.need_kind()
    place_object(obj, kind, request.namespace)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = generate_name(metadata["generateName"])
    for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
        metadata.pop(name, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = stamp
    if kind.generated:
        metadata["generation"] = 1
    _drop_empty(metadata)


def place_object(obj: Object, kind: ResourceKind, namespace: str) -> None:
    """Put an object into the namespace of the path."""
    metadata = obj["metadata"]
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace") or namespace
    if given != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["namespace"] = namespace


def generate_name(base: str) -> str:
    """Return a name with five random letters behind its base."""
    return base[:58] + "".join(random.choices(SUFFIX_LETTERS, k=5))


def stamp_changed(obj: Object, old: Object) -> None:
    """Keep what a writer cannot change in metadata."""
    metadata, before = obj["metadata"], old["metadata"]
    kept = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
    for name in (*kept, "name", "namespace"):
        if name in before:
            metadata[name] = before[name]
        else:
            metadata.pop(name, None)
    metadata.pop("selfLink", None)
    _drop_empty(metadata)


def _drop_empty(metadata: Object) -> None:
    for name in ("labels", "annotations", "finalizers", "ownerReferences", "generateName"):
        if name in metadata and not metadata[name]:
            del metadata[name]


def check_metadata(kind: ResourceKind, obj: Object) -> list[Cause]:
    """Return what is wrong with names, labels, annotations, finalizers and owners."""
    metadata = obj["metadata"]
    causes = _check_name(kind, metadata.get("name") or "")
    causes += _check_labels("metadata.labels", metadata.get("labels") or {})
    for key in metadata.get("annotations") or {}:
        causes += _check_key("metadata.annotations", key.lower())
    total = sum(len(k) + len(v) for k, v in (metadata.get("annotations") or {}).items())
    if total > MAX_ANNOTATIONS:
        causes.append(
            Cause(
                "FieldValueTooLong", f"Too long: may not be more than {MAX_ANNOTATIONS} bytes", "metadata.annotations"
            )
        )
    causes += _check_owners(metadata.get("ownerReferences") or [])
    for finalizer in metadata.get("finalizers") or ():
        if "/" not in finalizer and finalizer not in ("orphan", "foregroundDeletion", "kubernetes"):
            causes.append(
                wrong(
                    "metadata.finalizers",
                    finalizer,
                    "name is neither a standard finalizer name nor is it fully qualified",
                )
            )
    return causes


def _check_name(kind: ResourceKind, name: str) -> list[Cause]:
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if kind.kind in FREE_NAMES:
        ok = "/" not in name and "%" not in name and name not in (".", "..")
        return [] if ok else [wrong("metadata.name", name, "may not contain '/' or '%'")]
    if kind.kind == "Service":
        if SERVICE_NAME.match(name):
            return []
        detail = (
            RFC1123_LABEL if not LABEL.match(name) else "a DNS-1035 label must start with an alphabetic character"
        )
        return [wrong("metadata.name", name, detail)]
    if kind.kind in LABEL_NAMES:
        return [] if LABEL.match(name) else [wrong("metadata.name", name, RFC1123_LABEL)]
    if SUBDOMAIN.match(name) and len(name) <= 253:
        return []
    return [wrong("metadata.name", name, RFC1123_SUBDOMAIN)]


def _check_labels(field: str, labels: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in labels.items():
        causes += _check_key(field, key)
        if len(value) > 63 or not VALUE.match(value):
            causes.append(wrong(field, value, describe_label_value(value)))
    return causes


def describe_label_value(value: str) -> str:
    """Return what is wrong with a label value."""
    if len(value) > 63:
        return "must be no more than 63 bytes"
    return (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
        "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
        "for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    )


def _check_key(field: str, key: str) -> list[Cause]:
    prefix, found, name = key.rpartition("/")
    if found and not (SUBDOMAIN.match(prefix) and len(prefix) <= 253):
        return [wrong(field, key, "prefix part " + RFC1123_SUBDOMAIN)]
    if not QUALIFIED.match(name):
        return [
            wrong(
                field,
                key,
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with "
                "an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation "
                "is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            )
        ]
    return []


def _check_owners(owners: list[Any]) -> list[Cause]:
    causes: list[Cause] = []
    controllers = 0
    field = "metadata.ownerReferences"
    for owner in owners:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                causes.append(
                    wrong(
                        f"{field}.{name}",
                        owner.get(name) or "",
                        f"{'version' if name == 'apiVersion' else name} must not be empty",
                    )
                )
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        causes.append(
            wrong(
                "metadata.ownerReferences",
                [o.get("name") for o in owners],
                "Only one reference can have Controller set to true",
            )
        )
    return causes


def check_changed_metadata(obj: Object, old: Object) -> list[Cause]:
    """Return what a change may not do to metadata: above all no new finalizers on what is being deleted."""
    causes = []
    given = obj["metadata"].get("uid")
    if given and given != old["metadata"]["uid"]:
        causes.append(immutable("metadata.uid", given))
    if old["metadata"].get("deletionTimestamp"):
        before = set(old["metadata"].get("finalizers") or ())
        new = [name for name in obj["metadata"].get("finalizers") or () if name not in before]
        if new:
            shown = ", ".join(f'"{name}"' for name in new)
            causes.append(
                denied(
                    "metadata.finalizers",
                    "no new finalizers can be added if the object is being deleted, "
                    f"found new finalizers []string{{{shown}}}",
                )
            )
    return causes


def check_identity(kind: ResourceKind, obj: Object, name: str, namespace: str) -> None:
    """Refuse a body whose name or namespace is not that of the path."""
    metadata = obj["metadata"]
    given = metadata.get("name") or name
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
    metadata["name"] = name
    place_object(obj, kind, namespace)


def refuse(kind: ResourceKind, obj: Object, causes: list[Cause]) -> None:
    """Raise 422 where there are causes."""
    if causes:
        metadata = obj["metadata"]
        raise invalid(kind, metadata.get("name") or metadata.get("generateName") or "", causes)
