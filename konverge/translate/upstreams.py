"""Load balancing settings of upstreams: KongIngress, the host header annotation, KongUpstreamPolicy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from konverge.translate.annotations import HOST_HEADER
from konverge.translate.drafts import Entity
from konverge.translate.endpoints import Resolved
from konverge.translate.problems import Object
from konverge.translate.settings import STICKY_SESSIONS_SINCE
from konverge.translate.store import Scope

OVERRIDE = "konghq.com/override"
UPSTREAM_POLICY = "konghq.com/upstream-policy"
STICKY_SESSIONS = "sticky-sessions"

_KONG_INGRESS_FIELDS = (
    "host_header",
    "algorithm",
    "slots",
    "healthchecks",
    "hash_on",
    "hash_fallback",
    "hash_on_header",
    "hash_fallback_header",
    "hash_on_cookie",
    "hash_on_cookie_path",
    "hash_on_query_arg",
    "hash_fallback_query_arg",
    "hash_on_uri_capture",
    "hash_fallback_uri_capture",
)
_HASH_SOURCES = (
    ("header", "header"),
    ("cookie", "cookie"),
    ("queryArg", "query_arg"),
    ("uriCapture", "uri_capture"),
)


def balance(entity: Entity, services: Sequence[Resolved], from_gateway: bool, scope: Scope) -> None:
    """Apply everything that the Services say about load balancing; ``services`` is sorted by identity."""
    if _override(entity, services, from_gateway, scope):
        for resolved in services:
            if header := resolved.annotations.get(HOST_HEADER):
                entity["host_header"] = header
    policy = _find_policy(services, scope)
    if policy is not None:
        entity.update(read_policy(policy))


def _override(entity: Entity, services: Sequence[Resolved], from_gateway: bool, scope: Scope) -> bool:
    """Apply the KongIngress; False where the host header annotation must be skipped with it."""
    named = next((service for service in services if service.annotations.get(OVERRIDE)), None)
    if named is None:
        return True
    if from_gateway:
        return False
    name = named.annotations[OVERRIDE]
    found = scope.get("KongIngress", named.identity[0], name)
    if found is None:
        message = f"KongIngress {named.identity[0]}/{name} of {OVERRIDE} does not exist."
        _report(services, scope, "OverrideNotFound", message)
        return False
    if found.get("proxy") or found.get("route"):
        scope.report(
            "KongIngress", found, "FieldIgnored", "Only the upstream section is used; proxy and route are not."
        )
    upstream = found.get("upstream") or {}
    for field in _KONG_INGRESS_FIELDS:
        if upstream.get(field) is not None:
            entity[field] = upstream[field]
    return True


def _find_policy(services: Sequence[Resolved], scope: Scope) -> Object | None:
    names = {service.annotations.get(UPSTREAM_POLICY) for service in services}
    if not names or names == {None}:
        return None
    if len(names) > 1:
        message = f"The Services behind one route must agree on {UPSTREAM_POLICY}; none is applied."
        _report(services, scope, "UpstreamPolicyDiffers", message)
        return None
    name = names.pop() or ""
    namespace = services[0].identity[0]
    found = scope.get("KongUpstreamPolicy", namespace, name)
    if found is None:
        message = f"KongUpstreamPolicy {namespace}/{name} does not exist."
        _report(services, scope, "UpstreamPolicyNotFound", message)
        return None
    sticky = (found.get("spec") or {}).get("algorithm") == STICKY_SESSIONS
    if sticky and scope.settings.version < STICKY_SESSIONS_SINCE:
        message = f"KongUpstreamPolicy {namespace}/{name} wants sticky sessions, which Kong has from 3.11 on."
        _report(services, scope, "StickySessionsUnsupported", message)
        return None
    return found


def _report(services: Sequence[Resolved], scope: Scope, reason: str, message: str) -> None:
    scope.report_all("Service", (resolved.service for resolved in services), reason, message)


def read_policy(policy: Object) -> Entity:
    """Return the upstream fields of a KongUpstreamPolicy."""
    spec = policy.get("spec") or {}
    hash_on, fallback = spec.get("hashOn") or {}, spec.get("hashOnFallback") or {}
    sticky = spec.get("stickySessions") or {}
    fields = {
        "algorithm": spec.get("algorithm"),
        "slots": spec.get("slots"),
        "hash_on": _hash_source(hash_on),
        "hash_on_header": hash_on.get("header"),
        "hash_on_query_arg": hash_on.get("queryArg"),
        "hash_on_uri_capture": hash_on.get("uriCapture"),
        "hash_fallback": _hash_source(fallback),
        "hash_fallback_header": fallback.get("header"),
        "hash_fallback_query_arg": fallback.get("queryArg"),
        "hash_fallback_uri_capture": fallback.get("uriCapture"),
        "hash_on_cookie": _first(hash_on.get("cookie"), fallback.get("cookie")),
        "hash_on_cookie_path": _first(hash_on.get("cookiePath"), fallback.get("cookiePath")),
        "healthchecks": _read_healthchecks(spec.get("healthchecks") or {}),
        "sticky_sessions_cookie": sticky.get("cookie"),
        "sticky_sessions_cookie_path": sticky.get("cookiePath"),
    }
    return _present(fields)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _hash_source(spec: Object) -> str | None:
    if spec.get("input") is not None:
        source: str = spec["input"]
        return source
    return next((name for field, name in _HASH_SOURCES if spec.get(field) is not None), None)


def _read_healthchecks(spec: Object) -> Entity:
    active, passive = spec.get("active") or {}, spec.get("passive") or {}
    return _present(
        {
            "threshold": spec.get("threshold"),
            "active": _present(
                {
                    "type": active.get("type"),
                    "concurrency": active.get("concurrency"),
                    "timeout": active.get("timeout"),
                    "headers": active.get("headers"),
                    "http_path": active.get("httpPath"),
                    "https_sni": active.get("httpsSni"),
                    "https_verify_certificate": active.get("httpsVerifyCertificate"),
                    **_read_thresholds(active),
                }
            ),
            "passive": _present({"type": passive.get("type"), **_read_thresholds(passive)}),
        }
    )


def _read_thresholds(spec: Object) -> Entity:
    healthy, unhealthy = spec.get("healthy") or {}, spec.get("unhealthy") or {}
    return {
        "healthy": _present(
            {
                "http_statuses": healthy.get("httpStatuses"),
                "interval": healthy.get("interval"),
                "successes": healthy.get("successes"),
            }
        ),
        "unhealthy": _present(
            {
                "http_failures": unhealthy.get("httpFailures"),
                "http_statuses": unhealthy.get("httpStatuses"),
                "tcp_failures": unhealthy.get("tcpFailures"),
                "timeouts": unhealthy.get("timeouts"),
                "interval": unhealthy.get("interval"),
            }
        ),
    }


def _present(fields: Entity) -> Entity:
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}
