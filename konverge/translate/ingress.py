"""Ingress to Kong routes: one route per Ingress, host, backend and port."""

from __future__ import annotations

import re

from konverge.translate.annotations import PROTOCOLS, REWRITE
from konverge.translate.classes import parameters, selects_ingress
from konverge.translate.drafts import (
    FACADE,
    Backend,
    Claim,
    Contribution,
    Entity,
    Part,
    RouteDraft,
    new_service,
)
from konverge.translate.expressions.ingress import default_expression, express_ingress
from konverge.translate.kinds import INCUBATOR
from konverge.translate.objects import annotations_of, name_of, namespace_of, split_list, tag
from konverge.translate.paths import (
    DEFAULT_REGEX_PREFIX,
    IMPLEMENTATION_SPECIFIC,
    REGEX_PREFIX,
    clean_path,
    convert_path,
    mark_regex,
)
from konverge.translate.problems import Object
from konverge.translate.store import Scope

Pool = dict[tuple[str, str, str], tuple[Backend, str, list[tuple[str, str]]]]
"""(service name, host, route name) -> backend, host, (path, path type) in order of appearance."""


def draft_ingress(ingress: Object, scope: Scope) -> Contribution | None:
    """Return what an Ingress asks for, None where it belongs to another class."""
    if not selects_ingress(scope, ingress):
        return None
    spec = ingress.get("spec") or {}
    contribution = Contribution(claims=read_claims(ingress))
    pool = _pool_paths(ingress, scope)
    if pool:
        protocols = sorted(split_list(annotations_of(ingress).get(PROTOCOLS)))
        tags = tag("Ingress", ingress)
        parts: dict[str, Part] = {}
        for (service, _, route), (backend, host, paths) in pool.items():
            part = parts.get(service)
            if part is None:
                part = parts[service] = _new_part(service, backend, ingress, scope)
            entity = _new_route(route, tags)
            if protocols:
                entity["protocols"] = list(protocols)
            part.routes.append(_match(entity, ingress, scope, host, paths))
        contribution.parts = list(parts.values())
    if backend_spec := spec.get("defaultBackend"):
        contribution.default = _draft_default(ingress, backend_spec, scope)
    return contribution


def read_claims(value: Object) -> list[Claim]:
    """Return the TLS sections that have both hosts and a secret."""
    namespace = namespace_of(value)
    return [
        Claim(namespace, section["secretName"], section["hosts"])
        for section in (value.get("spec") or {}).get("tls") or ()
        if section.get("hosts") and section.get("secretName")
    ]


def _pool_paths(ingress: Object, scope: Scope) -> Pool:
    pool: Pool = {}
    namespace, name = namespace_of(ingress), name_of(ingress)
    for rule in (ingress.get("spec") or {}).get("rules") or ():
        host = rule.get("host") or ""
        shown = host.replace("*", "_")
        for path in (rule.get("http") or {}).get("paths") or ():
            backend = read_backend(ingress, path.get("backend") or {}, scope)
            if backend is None:
                continue
            service, _ = service_names(backend)
            if backend.kind == FACADE:
                route = f"{namespace}.{name}.{shown}.{backend.name}.svc.facade"
            else:
                route = f"{namespace}.{name}.{backend.name}.{shown}.{show_port(backend.port)}"
            entry = pool.setdefault((service, host, route), (backend, host, []))
            entry[2].append((clean_path(path.get("path")), path.get("pathType") or IMPLEMENTATION_SPECIFIC))
    return pool


def show_port(port: int | str | None) -> str:
    """Return a port as it appears in names."""
    return "implicitPort" if port is None else str(port)


def service_names(backend: Backend) -> tuple[str, str]:
    """Return the Kong service's name and its host, which is the name of its upstream."""
    if backend.kind == FACADE:
        name = f"{backend.namespace}.{backend.name}.svc.facade"
        return name, name
    port = show_port(backend.port)
    return (
        f"{backend.namespace}.{backend.name}.{port}",
        f"{backend.name}.{backend.namespace}.{port}.svc",
    )


def read_backend(ingress: Object, spec: Object, scope: Scope) -> Backend | None:
    """Return the backend of a path or of an Ingress; None and a problem where it cannot be used."""
    namespace = namespace_of(ingress)
    if service := spec.get("service"):
        port = service.get("port") or {}
        return Backend(namespace, service.get("name") or "", port.get("number") or port.get("name") or None)
    resource = spec.get("resource")
    if resource is None:
        scope.report("Ingress", ingress, "UnsupportedBackend", "A backend names neither service nor resource.")
        return None
    return _read_facade(ingress, resource, scope)


def _read_facade(ingress: Object, resource: Object, scope: Scope) -> Backend | None:
    group, kind, name = resource.get("apiGroup"), resource.get("kind"), resource.get("name") or ""
    cause = ""
    facade = None
    if group != INCUBATOR or kind != FACADE:
        cause = f"the resource kind {kind} of group {group or '(core)'} is not supported"
    elif not scope.settings.on("KongServiceFacade"):
        cause = "the feature KongServiceFacade is off"
    else:
        facade = scope.get(FACADE, namespace_of(ingress), name)
        cause = "" if facade else f"KongServiceFacade {namespace_of(ingress)}/{name} does not exist"
    if cause or facade is None:
        scope.report("Ingress", ingress, "UnsupportedBackend", f"A backend is ignored: {cause}.")
        return None
    port = ((facade.get("spec") or {}).get("backendRef") or {}).get("port")
    return Backend(namespace_of(ingress), name, port, kind=FACADE)


def _new_part(service: str, backend: Backend, ingress: Object, scope: Scope, default: bool = False) -> Part:
    _, host = service_names(backend)
    entity = new_service(service, host, "http", 80)
    if not default:
        entity["path"] = "/"
    facade = scope.get(FACADE, backend.namespace, backend.name) if backend.kind == FACADE else None
    parent = (FACADE, facade) if facade else ("Ingress", ingress)
    return Part(service, host, entity, [backend], "Ingress", ingress, [], parent, default=default)


def _new_route(name: str, tags: list[str]) -> Entity:
    return {
        "name": name,
        "strip_path": False,
        "preserve_host": True,
        "request_buffering": True,
        "response_buffering": True,
        "tags": tags,
    }


def _match(entity: Entity, ingress: Object, scope: Scope, host: str, paths: list[tuple[str, str]]) -> RouteDraft:
    draft = RouteDraft("Ingress", ingress, entity)
    annotations = annotations_of(ingress)
    prefix = annotations.get(REGEX_PREFIX)
    if scope.settings.on("ExpressionRoutes"):
        draft.expressive = True
        express_ingress(entity, annotations, host, paths, prefix or DEFAULT_REGEX_PREFIX)
    else:
        if host:
            entity["hosts"] = [host]
        entity["regex_priority"] = 0
        entity["paths"] = _mark(
            [kong for path, path_type in paths for kong in convert_path(path, path_type)], prefix, scope
        )
    if REWRITE in annotations and scope.settings.on("RewriteURIs"):
        draft.plugins = _rewrite(annotations[REWRITE])
    return draft


def _mark(paths: list[str], prefix: str | None, scope: Scope) -> list[str]:
    legacy = parameters(scope).legacy_regex
    used = DEFAULT_REGEX_PREFIX if prefix is None else prefix
    return [mark_regex(path, used, legacy) for path in paths]


def _draft_default(ingress: Object, spec: Object, scope: Scope) -> Part | None:
    backend = read_backend(ingress, spec, scope)
    if backend is None:
        return None
    service, _ = service_names(backend)
    part = _new_part(service, backend, ingress, scope, default=True)
    entity = _new_route(f"{namespace_of(ingress)}.{name_of(ingress)}", tag("Ingress", ingress))
    draft = RouteDraft("Ingress", ingress, entity)
    if scope.settings.on("ExpressionRoutes"):
        draft.expressive = True
        default_expression(entity)
    else:
        entity["regex_priority"] = 0
        entity["paths"] = _mark(["/"], annotations_of(ingress).get(REGEX_PREFIX), scope)
    part.routes.append(draft)
    return part


class RewriteError(ValueError):
    """A rewrite annotation cannot be understood."""


_TOKEN = re.compile(r"\\(.)|\$([0-9]+)|([\\$])|([^\\$]+)", re.DOTALL | re.ASCII)


def rewrite_uri(text: str) -> str:
    """Return the request-transformer's uri for a rewrite annotation; RewriteError where it is malformed.

    ``$3`` is the third capture of the path's regular expression, ``\\$`` a dollar sign.
    """
    result = []
    for escaped, capture, dangling, plain in _TOKEN.findall(text):
        if dangling or (escaped and escaped != "$"):
            raise RewriteError(f"cannot read {text!r} at {escaped or dangling!r}")
        result.append(f"$(uri_captures[{capture}])" if capture else "$" if escaped else plain)
    return "".join(result)


def _rewrite(text: str | None) -> list[Entity]:
    try:
        uri = rewrite_uri(text or "/")
    except RewriteError:
        return []  # the whole service is left out, see check_rewrites
    return [{"name": "request-transformer", "config": {"replace": {"uri": uri}}}]


def check_rewrites(parts: list[Part], scope: Scope) -> bool:
    """Tell whether the rewrites of a Kong service can be carried out; a problem on the parent where not."""
    for part in parts:
        if part.default or part.kind != "Ingress":
            continue
        annotations = annotations_of(part.source)
        if REWRITE not in annotations:
            continue
        reason, cause = "RewriteNotAllowed", "the feature RewriteURIs is off"
        if scope.settings.on("RewriteURIs"):
            try:
                rewrite_uri(annotations[REWRITE] or "/")
                continue
            except RewriteError as error:
                reason, cause = "RewriteMalformed", str(error)
        kind, value = parts[0].parent or (part.kind, part.source)
        scope.report(kind, value, reason, f"Kong service {part.service} is left out: {REWRITE}: {cause}.")
        return False
    return True
