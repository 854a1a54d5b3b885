"""Small readings of a Kubernetes object that every rule needs: annotations, order, tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from konverge.translate.kinds import KINDS
from konverge.translate.problems import Object

PREFIX = "konghq.com"
TAGS = "konghq.com/tags"

UNKNOWN_TAGS = [
    "k8s-name:UNKNOWN",
    "k8s-namespace:UNKNOWN",
    "k8s-kind:Service",
    "k8s-uid:00000000-0000-0000-0000-000000000000",
    "k8s-group:core",
    "k8s-version:v1",
]
"""The tags of a Kong service without a single existing backend."""

_COMMON_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_SUFFIXES = {
    name: ([f"k8s-group:{kind.group}"] if kind.group else []) + [f"k8s-version:{kind.version}"]
    for name, kind in KINDS.items()
}
_NOTHING: Mapping[str, str] = {}


def annotations_of(value: Object) -> Mapping[str, str]:
    """Return the annotations; never None."""
    found: Mapping[str, str] | None = value["metadata"].get("annotations")
    return found or _NOTHING


def name_of(value: Object) -> str:
    """Return ``metadata.name``."""
    name: str = value["metadata"]["name"]
    return name


def namespace_of(value: Object) -> str:
    """Return ``metadata.namespace``, "" where it is absent."""
    namespace: str | None = value["metadata"].get("namespace")
    return namespace or ""


def created(value: Object) -> str:
    """Return the creation time in a form that sorts as text; absent or unreadable sorts as the oldest."""
    text: str = value["metadata"].get("creationTimestamp") or ""
    if not text or _COMMON_TIME.fullmatch(text):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError):
        return ""


def age_order(value: Object) -> tuple[str, str]:
    """Return the sort key of Ingresses: the oldest first, then by ``namespace/name``."""
    metadata = value["metadata"]
    return (created(value), f"{metadata.get('namespace') or ''}/{metadata['name']}")


def split_list(text: str | None) -> list[str]:
    """Split at commas, trim, drop what is empty."""
    if not text:
        return []
    return [item for item in (part.strip() for part in text.split(",")) if item]


def tag(kind: str, value: Object, extra: Iterable[str] = ()) -> list[str]:
    """Return the tags that name the object an entity was made from, user tags last."""
    metadata = value["metadata"]
    tags = [f"k8s-name:{metadata['name']}"]
    if namespace := metadata.get("namespace"):
        tags.append(f"k8s-namespace:{namespace}")
    tags.append(f"k8s-kind:{kind}")
    if uid := metadata.get("uid"):
        tags.append(f"k8s-uid:{uid}")
    tags += _SUFFIXES[kind]
    tags += extra
    annotations = metadata.get("annotations")
    if annotations and TAGS in annotations:
        tags += dict.fromkeys(split_list(annotations[TAGS]))
    return tags
