"""Sections 5 and 7: targets, ports, weights, KongIngress and KongUpstreamPolicy."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    draw,
    http_route,
    ingress,
    konghq,
    make,
    only,
    path,
    reasons,
    ref,
    service,
    services,
    slice_of,
    upstreams,
)


def targets(*objects: Any, **settings: Any) -> list[dict[str, Any]]:
    return only(upstreams(draw(*objects, **settings))).get("targets", [])


def test_s5_targets_are_sorted_descending_and_ipv6_is_bracketed() -> None:
    found = targets(ingress(), service(), slice_of("svc", "10.0.0.1", "fd00::1", "10.0.0.2"))
    assert [entry["target"] for entry in found] == ["[fd00::1]:8080", "10.0.0.2:8080", "10.0.0.1:8080"]


def test_s5_only_the_first_address_of_an_endpoint_and_no_repetition() -> None:
    endpoints = [{"addresses": ["10.0.0.1", "10.0.0.9"]}, {"addresses": ["10.0.0.1"]}, {"addresses": []}]
    assert targets(ingress(), service(), slice_of("svc", endpoints=endpoints)) == [{"target": "10.0.0.1:8080"}]


def test_s5_slices_match_by_port_name_protocol_and_service() -> None:
    svc = service(ports=[{"name": "web", "port": 80}])
    ports = [
        {"name": "web", "port": 1, "protocol": "TCP"},
        {"name": "", "port": 2, "protocol": "TCP"},
        {"name": "web", "port": 3, "protocol": "UDP"},
        {"name": "web", "port": -1, "protocol": "TCP"},
        {"name": "web", "protocol": "TCP"},
    ]
    other = slice_of("other", "10.0.0.9", name="other-1")
    assert targets(ingress(), svc, slice_of("svc", "10.0.0.1", ports=ports), other) == [{"target": "10.0.0.1:1"}]


CONDITIONS = [
    {"ready": True},
    {},
    {"ready": False, "terminating": False},
    {"ready": False, "terminating": True},
    {"ready": True, "terminating": True},
]


def test_s5_endpoints_that_are_not_ready_are_left_out() -> None:
    endpoints = [{"addresses": [f"10.0.0.{i}"], "conditions": condition} for i, condition in enumerate(CONDITIONS)]
    value = slice_of("svc", endpoints=endpoints)
    assert [entry["target"][:8] for entry in targets(ingress(), service(), value)] == [
        "10.0.0.4",
        "10.0.0.1",
        "10.0.0.0",
    ]
    drained = targets(ingress(), service(), value, DrainSupport=True)
    assert [(entry["target"][:8], entry.get("weight")) for entry in drained] == [
        ("10.0.0.4", 0),
        ("10.0.0.3", 0),
        ("10.0.0.1", None),
        ("10.0.0.0", None),
    ]


def test_s5_service_upstream_is_one_target_per_protocol_merged() -> None:
    ports = [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]
    svc = service(ports=ports, annotations={"ingress.kubernetes.io/service-upstream": "true"})
    assert targets(ingress(), svc) == [{"target": "svc.ns.svc:80", "weight": 200}]
    assert targets(ingress(), svc, cluster_domain="cluster.local")[0]["target"] == "svc.ns.svc.cluster.local:80"


@pytest.mark.parametrize("text", ["True", "1", "yes", ""])
def test_s6_service_upstream_is_only_the_exact_word_true(text: str) -> None:
    svc = service(annotations={"ingress.kubernetes.io/service-upstream": text})
    assert targets(ingress(), svc, slice_of("svc", "10.0.0.1")) == [{"target": "10.0.0.1:8080"}]


def test_s5_external_names() -> None:
    svc = service(ports=(), spec={"type": "ExternalName", "externalName": "example.org"})
    assert targets(ingress("i", path(port=8443)), svc) == [{"target": "example.org:8443"}]
    by_name = draw(ingress("i", path(port="https")), svc)
    assert reasons(by_name) == [("PortNotFound", "Ingress/i"), ("PortNotFound", "Service/svc")]


@pytest.mark.parametrize(
    ("ports", "wanted", "number"),
    [
        ([{"port": 80}, {"port": 81}], 81, 81),
        ([{"name": "web", "port": 80}], "web", 80),
        ([{"port": 80, "targetPort": "web"}], "web", 80),
        ([{"port": 80}], None, 80),
        ([{"port": 80}, {"port": 81}], None, None),
        ([{"port": 80}], 81, None),
        ([{"port": 80}], "web", None),
        ([], None, None),
    ],
)
def test_s5_port_resolution(ports: list[Any], wanted: Any, number: int | None) -> None:
    rendered = draw(ingress("i", path(port=wanted)), service(ports=ports))
    assert only(services(rendered))["port"] == (number or 80)
    assert bool(rendered.problems) is (number is None)


def test_s5_weights_are_spread_and_summed() -> None:
    values = [
        service("a"),
        service("b"),
        slice_of("a", "10.0.0.1", "10.0.0.2", "10.0.0.3"),
        slice_of("b", "10.0.0.1"),
    ]
    rule = {"backendRefs": [ref("a", weight=10), ref("b", weight=1)]}
    found = targets(http_route("r", rule), *values)
    assert [entry["weight"] for entry in found] == [3, 3, 4]


@pytest.mark.parametrize(("weight", "share"), [(0, 0), (1, 1), (2, 1), (7, 3)])
def test_s5_a_weight_is_divided_by_the_number_of_targets(weight: int, share: int) -> None:
    values = [service(), slice_of("svc", "10.0.0.1", "10.0.0.2")]
    found = targets(http_route("r", {"backendRefs": [ref(weight=weight)]}), *values)
    assert [entry["weight"] for entry in found] == [share, share]


def test_s5_terminating_targets_do_not_count_in_the_division() -> None:
    endpoints = [
        {"addresses": ["10.0.0.1"]},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "terminating": True}},
    ]
    rule = {"backendRefs": [ref(weight=8)]}
    found = targets(http_route("r", rule), service(), slice_of("svc", endpoints=endpoints), DrainSupport=True)
    assert [entry["weight"] for entry in found] == [0, 8]


def test_s5_unweighted_repetitions_count_one_hundred() -> None:
    rule = {"backendRefs": [ref("a"), ref("b", weight=5)]}
    values = [service("a"), service("b"), slice_of("a", "10.0.0.1"), slice_of("b", "10.0.0.1")]
    assert targets(http_route("r", rule), *values) == [{"target": "10.0.0.1:8080", "weight": 105}]


def test_s5_a_backend_ref_without_port_resolves_to_nothing() -> None:
    rendered = draw(http_route("r", {"backendRefs": [ref(port=None)]}), service(), slice_of("svc", "10.0.0.1"))
    assert "targets" not in only(upstreams(rendered))
    assert "port" not in only(services(rendered))
    assert ("PortNotFound", "HTTPRoute/r") in reasons(rendered)


def test_s5_services_of_one_host_share_an_upstream() -> None:
    rule = {"port": 9000, "backend": {"serviceName": "svc", "servicePort": 80}}
    values = [
        make("TCPIngress", "t", annotations=CLASS, spec={"rules": [rule]}),
        make("UDPIngress", "u", annotations=CLASS, spec={"rules": [rule]}),
    ]
    rendered = draw(*values, service(), slice_of("svc", "10.0.0.1"))
    assert len(upstreams(rendered)) == 1
    assert only(upstreams(rendered))["targets"] == [{"target": "10.0.0.1:8080"}]
    assert services(rendered).keys() == {"ns.svc.80", "ns.svc.80.udp"}


def balanced(*objects: Any, annotations: dict[str, str], **settings: Any) -> tuple[dict[str, Any], list[Any]]:
    rendered = draw(ingress(), service(annotations=annotations), *objects, **settings)
    return only(upstreams(rendered)), reasons(rendered)


def test_s7_kong_ingress_sets_the_upstream_section_only() -> None:
    value = make(
        "KongIngress",
        "ki",
        upstream={
            "hash_on": "ip",
            "slots": 10,
            "host_header": "ki.example.com",
            "unknown": 1,
            "algorithm": "latency",
        },
        proxy={"path": "/x"},
        route={"strip_path": True},
    )
    found, problems = balanced(value, annotations=konghq(override="ki"))
    assert (found["hash_on"], found["slots"], found["host_header"], found["algorithm"]) == (
        "ip",
        10,
        "ki.example.com",
        "latency",
    )
    assert "unknown" not in found
    assert problems == [("FieldIgnored", "KongIngress/ki")]
    found, _ = balanced(value, annotations=konghq(override="ki", host_header="ann.example.com"))
    assert found["host_header"] == "ann.example.com"


def test_s7_a_missing_kong_ingress_also_loses_the_host_header() -> None:
    found, problems = balanced(annotations=konghq(override="ki", host_header="h.example.com"))
    assert "host_header" not in found
    assert problems == [("OverrideNotFound", "Service/svc")]


def test_s7_kong_ingress_and_host_header_are_skipped_for_gateway_routes() -> None:
    values = [make("KongIngress", "ki", upstream={"hash_on": "ip"})]
    svc = service(annotations=konghq(override="ki", host_header="h.example.com"))
    found = only(upstreams(draw(http_route("r", {"backendRefs": [ref()]}), svc, *values)))
    assert "hash_on" not in found
    assert "host_header" not in found


def test_s7_a_policy_overrides_both() -> None:
    policy = make("KongUpstreamPolicy", "p", spec={"hashOn": {"input": "consumer"}, "slots": 0})
    value = make("KongIngress", "ki", upstream={"hash_on": "ip", "slots": 10})
    found, _ = balanced(policy, value, annotations=konghq(override="ki", upstream_policy="p"))
    assert (found["hash_on"], found["slots"]) == ("consumer", 0)


@pytest.mark.parametrize(
    ("spec", "fields"),
    [
        ({"hashOn": {"header": "h"}}, {"hash_on": "header", "hash_on_header": "h"}),
        (
            {"hashOn": {"cookie": "c", "cookiePath": "/p"}},
            {"hash_on": "cookie", "hash_on_cookie": "c", "hash_on_cookie_path": "/p"},
        ),
        ({"hashOn": {"queryArg": "q"}}, {"hash_on": "query_arg", "hash_on_query_arg": "q"}),
        ({"hashOn": {"uriCapture": "u"}}, {"hash_on": "uri_capture", "hash_on_uri_capture": "u"}),
        (
            {"hashOnFallback": {"header": "f", "cookie": "c"}},
            {"hash_fallback": "header", "hash_fallback_header": "f", "hash_on_cookie": "c"},
        ),
        ({"hashOnFallback": {"queryArg": "q"}}, {"hash_fallback": "query_arg", "hash_fallback_query_arg": "q"}),
        ({"hashOnFallback": {"uriCapture": "u"}}, {"hash_fallback": "uri_capture", "hash_fallback_uri_capture": "u"}),
        ({"healthchecks": {"threshold": 0}}, {"healthchecks": {"threshold": 0}}),
        (
            {"healthchecks": {"passive": {"unhealthy": {"httpFailures": 1, "httpStatuses": []}}}},
            {"healthchecks": {"passive": {"unhealthy": {"http_failures": 1}}}},
        ),
        ({"healthchecks": {"active": {"healthy": {}}}}, {}),
    ],
)
def test_s7_policy_fields(spec: dict[str, Any], fields: dict[str, Any]) -> None:
    policy = make("KongUpstreamPolicy", "p", spec=spec)
    found, _ = balanced(policy, annotations=konghq(upstream_policy="p"))
    for name in ("name", "tags"):
        found.pop(name)
    assert found == {"algorithm": "round-robin", **fields}


def test_s7_sticky_sessions_need_kong_3_11() -> None:
    spec = {"algorithm": "sticky-sessions", "stickySessions": {"cookie": "c", "cookiePath": "/"}, "slots": 5}
    policy = make("KongUpstreamPolicy", "p", spec=spec)
    found, problems = balanced(policy, annotations=konghq(upstream_policy="p"))
    assert (found["algorithm"], "slots" in found) == ("round-robin", False)
    assert problems == [("StickySessionsUnsupported", "Service/svc")]
    found, problems = balanced(policy, annotations=konghq(upstream_policy="p"), kong_version="3.11.0")
    assert (found["sticky_sessions_cookie"], found["sticky_sessions_cookie_path"]) == ("c", "/")
    assert not problems


def test_s7_a_missing_policy_is_a_problem() -> None:
    found, problems = balanced(annotations=konghq(upstream_policy="p"))
    assert found["algorithm"] == "round-robin"
    assert problems == [("UpstreamPolicyNotFound", "Service/svc")]
