"""How objects leave the server: plain JSON, a Table for people, or only their metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from konverge.lab.apiserver.eventing import to_events_v1
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.statuses import bad_request, not_acceptable
from konverge.lab.apiserver.store import Entry, Object
from konverge.lab.apiserver.tables.rendering import render_table

ACCEPTED = ("application/json", "application/yaml", "application/json;stream=watch")
PARTIAL_HEAD = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"'


@dataclass(frozen=True, slots=True)
class Form:
    """The representation that was agreed on: object, table or partial."""

    style: str = "object"
    include: str = "Metadata"
    yaml: bool = False


PLAIN = Form()


def negotiate(request: Request) -> Form:
    """Return the first representation in Accept that can be served; 406 where there is none."""
    accept = request.headers.get("Accept", "")
    if accept in ("", "*/*", "application/json"):
        return PLAIN
    for clause in accept.split(","):
        kind, *parameters = (part.strip() for part in clause.split(";"))
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind not in ("application/json", "application/yaml", "*/*", "application/*"):
            continue
        style = _find_style(options)
        if style:
            return Form(style, _find_include(request), kind == "application/yaml")
    raise not_acceptable(ACCEPTED)


def _find_style(options: dict[str, str]) -> str:
    wanted = options.get("as", "")
    if not wanted:
        return "object"
    if options.get("g", "meta.k8s.io") != "meta.k8s.io" or options.get("v", "v1") != "v1":
        return ""
    return {"Table": "table", "PartialObjectMetadata": "partial", "PartialObjectMetadataList": "partial"}.get(
        wanted, ""
    )


def _find_include(request: Request) -> str:
    include = request.query.get("includeObject") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise bad_request(f'unknown includeObject value: "{include}"')
    return include


def encode_entry(form: Form, kind: ResourceKind, entry: Entry, now: float) -> bytes:
    """Return one object."""
    if form.style == "partial":
        return PARTIAL_HEAD + b',"metadata":' + orjson.dumps(entry.object["metadata"]) + b"}"
    if form.style == "table":
        table = render_table(kind, [entry.object], form.include, now)
        table["metadata"] = {"resourceVersion": entry.object["metadata"]["resourceVersion"]}
        return orjson.dumps(table)
    if kind.group == "events.k8s.io":
        return orjson.dumps(to_events_v1(entry.object))
    return entry.encode(kind.head)


def encode_list(form: Form, kind: ResourceKind, entries: Sequence[Entry], metadata: Object, now: float) -> bytes:
    """Return a list; items of built-in kinds carry neither kind nor apiVersion, as in the real server."""
    if form.style == "table":
        table = render_table(kind, [entry.object for entry in entries], form.include, now)
        table["metadata"] = metadata
        return orjson.dumps(table)
    if form.style == "partial":
        head = b'{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":'
        items = [encode_entry(form, kind, entry, now) for entry in entries]
    else:
        head = f'{{"kind":"{kind.list_kind}","apiVersion":"{kind.api_version}","metadata":'.encode()
        items = [_encode_item(kind, entry) for entry in entries]
    return head + orjson.dumps(metadata) + b',"items":[' + b",".join(items) + b"]}"


def _encode_item(kind: ResourceKind, entry: Entry) -> bytes:
    if kind.custom is not None:
        return entry.encode(kind.head)
    if kind.group == "events.k8s.io":
        converted = to_events_v1(entry.object)
        return orjson.dumps({k: v for k, v in converted.items() if k not in ("kind", "apiVersion")})
    return entry.body()


def to_yaml(document: bytes) -> bytes:
    """Return a JSON document as YAML."""
    import yaml

    return yaml.safe_dump(orjson.loads(document), sort_keys=False, allow_unicode=True).encode()
