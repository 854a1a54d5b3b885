"""From the parts of one Kong service to the finished service, its routes and its upstream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from konverge.translate.annotations import (
    PLUGINS,
    PROTOCOL,
    has_ours,
    override_route,
    override_service,
)
from konverge.translate.defaults import fill_plugin
from konverge.translate.drafts import FACADE, Backend, Entity, Part, RouteDraft
from konverge.translate.endpoints import (
    Resolved,
    find_port,
    list_endpoints,
    merge_targets,
    weigh,
)
from konverge.translate.entities import Entry, drop_empty, sort_plugins
from konverge.translate.ingress import check_rewrites
from konverge.translate.kinds import GATEWAY, KINDS
from konverge.translate.objects import PREFIX, UNKNOWN_TAGS, annotations_of, tag
from konverge.translate.referring import Reference, read_references
from konverge.translate.service_tls import secure
from konverge.translate.store import Scope
from konverge.translate.upstreams import balance

Identity = tuple[str, str]


@dataclass(slots=True)
class ServiceResult:
    """One Kong service, ready for the document."""

    upstream: Entry
    service: Entity | None = None
    """None where the service is left out and only its upstream stays."""
    client_certificate: Identity | None = None
    """The Secret whose certificate the service presents; its id is known last."""
    references: list[Reference] = field(default_factory=list)
    """Plugins that the service and its routes refer to."""
    routes: list[Entity] = field(default_factory=list)


def assemble(parts: Sequence[Part], owns_host: bool, scope: Scope) -> ServiceResult | None:
    """Return the finished service, None where it must not exist at all.

    ``owns_host`` is false where another Kong service of the same host defines the upstream.
    """
    used = list(parts)
    if not check_rewrites(used, scope):
        used = [part for part in used if part.default]
        if not used:
            return None
    first = used[0]
    resolved = _resolve(first, scope)
    distinct = sorted({item.identity: item for item in reversed(resolved)}.values(), key=_by_name)
    if not _agree(first, distinct, scope):
        return ServiceResult(_bare_upstream(first.host))
    entity = dict(first.entity)
    tags = _choose_tags(first, resolved)
    upstream: Entity = {"name": first.host, "tags": tags}
    if owns_host:
        upstream["targets"] = _find_targets(entity, first, resolved, scope)
    certificate = _annotate(entity, distinct, scope)
    balance(upstream, distinct, _from_gateway(first), scope)
    entity["tags"] = tags
    result = ServiceResult(_finish_upstream(upstream), client_certificate=certificate)
    _finish_service(result, entity, used, distinct, scope)
    return result


def _by_name(resolved: Resolved) -> str:
    namespace, name = resolved.identity
    return f"{namespace}/{name}"


def _from_gateway(part: Part) -> bool:
    return part.parent is not None and KINDS[part.parent[0]].group == GATEWAY


def _resolve(part: Part, scope: Scope) -> list[Resolved]:
    found = []
    for backend in part.backends:
        resolved = _resolve_facade(backend, scope) if backend.kind == FACADE else _resolve_service(backend, scope)
        if resolved is not None:
            found.append(resolved)
            continue
        kind, value = part.parent or (part.kind, part.source)
        missing = f"{backend.kind} {backend.namespace}/{backend.name}"
        scope.report(kind, value, "BackendNotFound", f"The backend {missing} does not exist: it gets no target.")
    return found


def _resolve_service(backend: Backend, scope: Scope) -> Resolved | None:
    service = scope.get("Service", backend.namespace, backend.name)
    return None if service is None else Resolved(backend, service, annotations_of(service))


def _resolve_facade(backend: Backend, scope: Scope) -> Resolved | None:
    facade = scope.get(FACADE, backend.namespace, backend.name)
    if facade is None:
        return None
    name = ((facade.get("spec") or {}).get("backendRef") or {}).get("name") or ""
    service = scope.get("Service", backend.namespace, name)
    if service is None:
        return None
    return Resolved(backend, service, {**annotations_of(service), **annotations_of(facade)}, facade)


def _agree(part: Part, services: Sequence[Resolved], scope: Scope) -> bool:
    """Tell whether all Services carry the same annotations of ours."""
    if len(services) < 2:
        return True
    wanted: dict[str, str] = {}
    for resolved in services:
        wanted.update({key: text for key, text in resolved.annotations.items() if key.startswith(PREFIX)})
    good = True
    for key, text in wanted.items():
        if any(resolved.annotations.get(key) != text for resolved in services):
            good = False
            message = f"Kong service {part.service} is left out: its Services must all be annotated {key} alike."
            scope.report_all("Service", (item.service for item in services), "AnnotationsDiffer", message)
    return good


def _choose_tags(part: Part, resolved: Sequence[Resolved]) -> list[str]:
    if len(resolved) > 1:
        return tag(*part.parent) if part.parent else []
    if not resolved:
        return list(UNKNOWN_TAGS)
    only = resolved[0]
    if only.facade is not None:
        return tag(FACADE, only.facade)
    return tag("Service", only.service)


def _bare_upstream(host: str) -> Entry:
    return Entry((host,), {"name": host, "algorithm": "round-robin"})


def _finish_upstream(upstream: Entity) -> Entry:
    upstream.setdefault("algorithm", "round-robin")
    return Entry((upstream["name"],), drop_empty(upstream))


def _find_targets(entity: Entity, part: Part, resolved: Sequence[Resolved], scope: Scope) -> list[Entity]:
    """Return the targets and set the port of the service to that of the last backend that has one."""
    found = []
    for item in resolved:
        port = find_port(item.service, item.backend.port)
        if port is None:
            _report_port(part, item, scope)
            continue
        entity["port"] = port.number
        found += weigh(list_endpoints(item, port, scope), item.backend.weight)
    return merge_targets(found)


def _report_port(part: Part, item: Resolved, scope: Scope) -> None:
    namespace, name = item.identity
    wanted = item.backend.port
    shown = "a single port" if wanted is None else "a named port" if wanted == -1 else f"port {wanted}"
    message = f"Service {namespace}/{name} does not offer {shown} to Kong service {part.service}."
    scope.report("Service", item.service, "PortNotFound", message)
    kind, value = part.parent or (part.kind, part.source)
    scope.report(kind, value, "PortNotFound", message)


def _annotate(entity: Entity, services: Sequence[Resolved], scope: Scope) -> Identity | None:
    """Apply the Services' annotations; returns the Secret of the client certificate."""
    certificate = None
    for resolved in services:
        certificate = secure(entity, resolved, scope) or certificate
    for resolved in services:
        if has_ours(resolved.annotations) and not override_service(entity, resolved.annotations):
            message = f"{PROTOCOL}: {resolved.annotations[PROTOCOL]!r} is no protocol of a Kong service."
            scope.report_all("Service", (item.service for item in services), "ProtocolInvalid", message)
            return certificate
    if entity["protocol"] in ("grpc", "grpcs"):
        entity.pop("path", None)
    return certificate


def _finish_service(
    result: ServiceResult, entity: Entity, parts: Sequence[Part], services: Sequence[Resolved], scope: Scope
) -> None:
    name = entity["name"]
    for resolved in services:
        names = resolved.annotations.get(PLUGINS)
        if names:
            result.references += read_references(scope, "Service", resolved.service, names, (), ("service", name))
    plugins = [plugin for part in parts for plugin in part.plugins]
    if plugins:
        entity["plugins"] = _finish_plugins(plugins, scope)
    drafts = [draft for part in parts for draft in part.routes]
    drafts.sort(key=lambda draft: draft.entity["name"], reverse=True)
    result.routes = entity["routes"] = [_finish_route(draft, result, scope) for draft in drafts]
    entity["id"] = scope.ids.service(name)
    result.service = drop_empty(entity)


def _finish_plugins(plugins: Sequence[Entity], scope: Scope) -> list[Entity]:
    """Return nested plugins in the order of the document, filled with the defaults of their schemas."""
    schemas = scope.settings.plugin_schemas
    if not schemas:
        return sort_plugins(plugins)
    filled = [dict(plugin) for plugin in plugins]
    for plugin in filled:
        if plugin["name"] in schemas:
            fill_plugin(plugin, schemas[plugin["name"]])
    return sort_plugins(filled)


def _finish_route(draft: RouteDraft, result: ServiceResult, scope: Scope) -> Entity:
    entity = dict(draft.entity)
    annotations = annotations_of(draft.source)
    if annotations and has_ours(annotations):
        for ignored in override_route(entity, annotations, draft.expressive):
            message = f"The annotation {ignored} cannot be read and is ignored."
            scope.report(draft.kind, draft.source, "AnnotationInvalid", message)
    name = entity["name"]
    names = annotations.get(PLUGINS)
    if names or draft.references:
        result.references += read_references(
            scope, draft.kind, draft.source, names, draft.references, ("route", name)
        )
    if draft.plugins:
        entity["plugins"] = _finish_plugins(draft.plugins, scope)
    entity.setdefault("https_redirect_status_code", 426)
    if not draft.expressive:
        entity.setdefault("path_handling", "v0")
    entity["id"] = scope.ids.route(name)
    return drop_empty(entity)
