"""Section 15: what a fallback configuration leaves out and puts back."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    GATEWAY,
    KONG,
    consumer,
    http_route,
    ingress,
    konghq,
    make,
    path,
    plugin,
    ref,
    routes,
    secret,
    service,
)

from konverge.translate import ObjectRef, Settings, plan_fallback, render, render_fallback
from konverge.translate.fallback import Graph, read_snapshot

STUB = {"_format_version": "3.0", "upstreams": [{"name": "kong"}]}


def dependants(key: tuple[str, str, str], *objects: Any) -> set[str]:
    found = Graph(read_snapshot(objects)).with_dependants(key)
    return {f"{kind}/{name}" for kind, _, name in found if (kind, _, name) != key}


SVC = ("Service", "ns", "svc")
PLUG = ("KongPlugin", "ns", "plug")
WANTS = konghq(plugins="plug")


def test_s15_dependants_of_a_service() -> None:
    layer4 = {"rules": [{"port": 1, "backend": {"serviceName": "svc", "servicePort": 80}}]}
    kindless = {"backendRefs": [{"name": "svc", "port": 80}]}
    values = [
        service(),
        ingress(),
        ingress("default", path(svc="other"), spec={"defaultBackend": {"service": {"name": "svc"}}}),
        http_route("r", {"backendRefs": [ref()]}),
        http_route("kindless", kindless),
        make("HTTPRoute", "far", "other", spec={"rules": [{"backendRefs": [ref(namespace="ns")]}]}),
        make("TCPIngress", "t", spec=layer4),
        make("UDPIngress", "u", spec=layer4),
        make("KongServiceFacade", "f", spec={"backendRef": {"name": "svc"}}),
    ]
    assert dependants(SVC, *values) == {"Ingress/ing", "HTTPRoute/r", "HTTPRoute/far", "TCPIngress/t", "UDPIngress/u"}


def test_s15_dependants_of_a_plugin() -> None:
    extension = {"type": "ExtensionRef", "extensionRef": {"group": KONG, "kind": "KongPlugin", "name": "plug"}}
    parent = {"group": KONG, "kind": "KongPlugin", "name": "plug"}
    values = [
        plugin(),
        service(annotations=WANTS),
        ingress(),
        consumer("bob", annotations=WANTS),
        make("KongConsumerGroup", "g", annotations=WANTS),
        ingress("namespaced", path(svc="x"), annotations=konghq(plugins="ns:plug")),
        http_route("r", {"filters": [extension]}),
        make("KongCustomEntity", "e", spec={"parentRef": parent}),
        make("KongCustomEntity", "far", "other", spec={"parentRef": {**parent, "namespace": "ns"}}),
    ]
    assert dependants(PLUG, *values) == {
        "Service/svc",
        "Ingress/ing",
        "KongConsumer/bob",
        "KongConsumerGroup/g",
        "KongCustomEntity/e",
    }


def test_s15_a_cluster_plugin_counts_where_there_is_no_plugin_of_that_name() -> None:
    cluster = make("KongClusterPlugin", "plug", plugin="cors")
    key = ("KongClusterPlugin", "", "plug")
    assert dependants(key, cluster, service(annotations=WANTS)) == {"Service/svc"}
    assert dependants(key, cluster, service(annotations=WANTS), plugin()) == set()


def test_s15_dependants_of_secrets_policies_and_classes() -> None:
    source = {"secretKeyRef": {"name": "sec", "key": "k", "namespace": "ns"}}
    values = [
        secret("sec"),
        plugin("one", configFrom=source),
        plugin("two", configPatches=[{"path": "/a", "valueFrom": source}]),
        make("KongClusterPlugin", "three", plugin="cors", configFrom=source),
        consumer("bob", credentials=["sec"]),
        ingress("tls", spec={"tls": [{"hosts": ["h"], "secretName": "sec"}]}),
    ]
    assert dependants(("Secret", "ns", "sec"), *values) == {
        "KongPlugin/one",
        "KongPlugin/two",
        "KongClusterPlugin/three",
        "KongConsumer/bob",
    }
    policy = konghq(upstream_policy="pol")
    values = [
        make("KongUpstreamPolicy", "pol"),
        service(annotations=policy),
        ingress("i", path(svc="x"), annotations=policy),
    ]
    assert dependants(("KongUpstreamPolicy", "ns", "pol"), *values) == {"Service/svc", "Ingress/i"}
    values = [make("IngressClass", "kong"), ingress(), make("Ingress", "ann", annotations=CLASS)]
    assert dependants(("IngressClass", "", "kong"), *values) == {"Ingress/ing", "Ingress/ann"}


def test_s15_the_refused_object_and_its_dependants_are_left_out() -> None:
    values = [service(uid="u"), ingress(), service("ok"), ingress("fine", path(svc="ok"))]
    rendered = render_fallback(values, [SVC])
    assert rendered.content == render(values[2:]).content
    assert {(item.reason, item.object_ref.name) for item in rendered.problems} == {
        ("ExcludedByFallback", "svc"),
        ("ExcludedByFallback", "ing"),
    }


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (service(), SVC),
        (make("IngressClass", "kong", uid="u"), ("IngressClass", "", "kong")),
        (service(uid="u", namespace=""), ("Service", "", "svc")),
        (service("other", uid="u"), SVC),
    ],
)
def test_s15_refused_objects_that_cannot_be_recognised(value: Any, key: tuple[str, str, str]) -> None:
    values = [value, ingress()]
    assert render_fallback(values, [key]).document == STUB
    good = [service(), ingress("good")]
    assert render_fallback(values, [key], Settings(), good).content == render(good).content


def test_s15_the_uid_must_be_the_same() -> None:
    values = [service(uid="u"), ingress()]
    assert routes(render_fallback([*values, service("ok"), ingress("f", path(svc="ok"))], [ObjectRef(*SVC, uid="u")]))
    assert render_fallback(values, [ObjectRef(*SVC, uid="other")]).document == STUB


@pytest.mark.parametrize("kind", ["KongClusterPlugin", "KongVault", "KongLicense"])
def test_s15_some_cluster_scoped_kinds_can_be_recognised(kind: str) -> None:
    value = make(kind, "x", uid="u", plugin="cors")
    assert plan_fallback(read_snapshot([value]), [(kind, "", "x")]).excluded == {(kind, "", "x"): (kind, "", "x")}


def test_s15_what_last_worked_is_put_back_with_its_dependants() -> None:
    before = [
        service(uid="u", annotations=konghq(retries="1")),
        ingress("gone"),
        ingress("ing", host="old.org"),
        service("ok", annotations=konghq(retries="1")),
        ingress("fine", path(svc="ok"), host="old.org"),
    ]
    now = [
        service(uid="u", annotations=konghq(retries="2")),
        ingress("ing", host="new.org"),
        service("ok", annotations=konghq(retries="2")),
        ingress("fine", path(svc="ok"), host="new.org"),
    ]
    rendered = render_fallback(now, [SVC], Settings(), before)
    assert rendered.content == render([*before[:3], *now[2:]]).content
    assert {(item.reason, item.object_ref.name) for item in rendered.problems} == {
        ("RestoredByFallback", "svc"),
        ("RestoredByFallback", "ing"),
    }


def test_s15_an_object_that_never_worked_stays_out() -> None:
    values = [plugin(uid="u"), service(annotations=WANTS), ingress()]
    assert render_fallback(values, [PLUG], Settings(), []).document == STUB


def test_s15_grants_and_gateways_make_no_dependants() -> None:
    values = [make("Gateway", "gw", uid="u", spec={}), http_route("r", {"backendRefs": [ref()]})]
    assert dependants(("Gateway", "ns", "gw"), *values) == set()
    assert GATEWAY
