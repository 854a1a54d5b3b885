"""Sections 12 and 13: TCPIngress, UDPIngress and the routes of the Gateway API."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    GATEWAY,
    KONG,
    draw,
    gateway,
    http_route,
    konghq,
    make,
    match,
    only,
    plugin,
    reasons,
    ref,
    routes,
    service,
    services,
)

from konverge.translate.gateway.durations import parse_duration

HTTP = {"name": "http", "protocol": "HTTP", "port": 80}
HTTPS = {"name": "https", "protocol": "HTTPS", "port": 443}


def layer4(kind: str, *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return make(kind, "l4", annotations=CLASS, spec={"rules": list(rules), **fields})


def rule4(port: int = 9000, svc: str = "svc", **fields: Any) -> dict[str, Any]:
    return {"port": port, "backend": {"serviceName": svc, "servicePort": 80}, **fields}


def test_s12_tcp_ingress() -> None:
    rendered = draw(layer4("TCPIngress", rule4(host="t.org"), rule4(9001)), service())
    entity = only(services(rendered))
    assert (entity["name"], entity["host"], entity["protocol"], entity["retries"]) == (
        "ns.svc.80",
        "svc.ns.80.svc",
        "tcp",
        5,
    )
    assert "path" not in entity
    first = routes(rendered)["ns.l4.0"]
    assert (first["protocols"], first["destinations"], first["snis"]) == (["tcp", "tls"], [{"port": 9000}], ["t.org"])
    assert not {"strip_path", "preserve_host", "regex_priority", "request_buffering"} & first.keys()
    assert first["path_handling"] == "v0"
    assert "snis" not in routes(rendered)["ns.l4.1"]


def test_s12_udp_ingress_services_have_no_timeouts() -> None:
    rendered = draw(layer4("UDPIngress", rule4()), service())
    entity = only(services(rendered))
    assert (entity["name"], entity["protocol"], entity["port"]) == ("ns.svc.80.udp", "udp", 80)
    assert not {"connect_timeout", "read_timeout", "write_timeout", "retries"} & entity.keys()
    assert routes(rendered)["ns.l4.0.udp"]["protocols"] == ["udp"]


def grant(kind: str = "HTTPRoute", **to: str) -> dict[str, Any]:
    spec = {
        "from": [{"group": GATEWAY, "kind": kind, "namespace": "ns"}],
        "to": [{"group": "", "kind": "Service", **to}],
    }
    return make("ReferenceGrant", "g", "other", spec=spec)


@pytest.mark.parametrize(
    ("reference", "grants", "good"),
    [
        (ref(), [], True),
        (ref(group="core"), [], True),
        (ref(group="x"), [], False),
        ({"name": "svc", "port": 80}, [], False),
        (ref(kind="Other"), [], False),
        (ref("gone"), [], False),
        (ref("far", namespace="other"), [], False),
        (ref("far", namespace="other"), [grant()], True),
        (ref("far", namespace="other"), [grant(name="far")], True),
        (ref("far", namespace="other"), [grant(name="else")], False),
        (ref("far", namespace="other"), [grant("GRPCRoute")], False),
    ],
)
def test_s13_backend_acceptance(reference: dict[str, Any], grants: list[Any], good: bool) -> None:
    values = [service(), service("far", namespace="other")]
    rendered = draw(http_route("r", {"backendRefs": [reference]}), *values, *grants)
    plugins = only(services(rendered)).get("plugins", [])
    terminated = [{"name": "request-termination",
                   "config": {"message": "no existing backendRef provided", "status_code": 500}}]  # fmt: skip
    assert plugins == ([] if good else terminated)
    assert reasons(rendered) == ([] if good else [("BackendRefRejected", "HTTPRoute/r")])


def test_s13_no_refs_no_plugin() -> None:
    assert "plugins" not in only(services(draw(http_route("r", {"matches": [match()]}))))


def test_s13_1_rules_with_equal_refs_share_a_service() -> None:
    rules = [
        {"backendRefs": [ref("a"), ref("b")], "matches": [match("/0")]},
        {"backendRefs": [ref("b"), ref("a")], "matches": [match("/1")]},
        {"backendRefs": [ref("a", group=""), ref("b")], "matches": [match("/2")]},
        {"backendRefs": [ref("a", weight=1), ref("b")], "matches": [match("/3")]},
        {"backendRefs": [ref("a", unknown=1, filters=[]), ref("b")], "matches": [match("/4")]},
    ]
    rendered = draw(http_route("r", *rules), service("a"), service("b"))
    assert sorted(services(rendered)) == ["httproute.ns.r.0", "httproute.ns.r.2", "httproute.ns.r.3"]
    (shared,) = services(rendered)["httproute.ns.r.0"]["routes"]
    assert shared["paths"] == ["~/0$", "/0/", "~/1$", "/1/", "~/4$", "/4/"]


def test_s13_1_rules_are_ordered_as_text() -> None:
    rules = [{"backendRefs": [ref()], "matches": [match(f"/{index}", "Exact")]} for index in range(11)]
    route = only(routes(draw(http_route("r", *rules), service())))
    assert route["name"] == "httproute.ns.r.0.0"
    assert route["paths"][:3] == ["~/0$", "~/1$", "~/10$"]


def test_s13_1_matches_are_pooled_by_method_and_headers() -> None:
    header = [{"name": "X-A", "value": "1"}]
    matches = [
        match("/a", "Exact", method="GET"),
        match("/b", "Exact", method="GET"),
        match("/c", "Exact", method="POST"),
        match("/d", "Exact", headers=header),
        match("/e", "Exact", headers=[{"name": "x-a", "value": "1"}]),
        {},
    ]
    found = routes(draw(http_route("r", {"backendRefs": [ref()], "matches": matches}), service()))
    assert [(name[-1], route.get("paths"), route.get("methods")) for name, route in sorted(found.items())] == [
        ("0", ["~/a$", "~/b$"], ["GET"]),
        ("2", ["~/c$"], ["POST"]),
        ("3", ["~/d$", "~/e$"], None),
        ("5", None, None),
    ]
    assert found["httproute.ns.r.0.3"]["headers"] == {"X-A": ["1"]}


def test_s13_1_header_matches() -> None:
    headers = [{"name": "A", "value": "1", "type": "RegularExpression"}, {"name": "B", "value": "2", "type": "Exact"}]
    rule = {"backendRefs": [ref()], "matches": [match(headers=headers)]}
    assert only(routes(draw(http_route("r", rule), service())))["headers"] == {"A": ["~*1"], "B": ["2"]}
    rule["matches"] = [match(headers=[headers[0], headers[0]])]
    rendered = draw(http_route("r", rule), service())
    assert not services(rendered)
    assert reasons(rendered) == [("RouteUnsupported", "HTTPRoute/r")]


@pytest.mark.parametrize(
    ("value", "kind", "paths"),
    [
        ("/", "PathPrefix", ["~/$", "/"]),
        ("/a/", "PathPrefix", ["~/a/$", "/a/"]),
        ("/a", "PathPrefix", ["~/a$", "/a/"]),
        ("/a", "Exact", ["~/a$"]),
        ("/a.*", "RegularExpression", ["~/a.*"]),
    ],
)
def test_s13_1_paths(value: str, kind: str, paths: list[str]) -> None:
    rule = {"backendRefs": [ref()], "matches": [match(value, kind)]}
    assert only(routes(draw(http_route("r", rule), service())))["paths"] == paths


def test_s13_1_a_rule_without_matches() -> None:
    rule = {"name": "n", "backendRefs": [ref()], "filters": [redirect()]}
    found = only(routes(draw(http_route("r", rule, spec={"hostnames": ["h.org"]}), service())))
    assert found["hosts"] == ["h.org"]
    assert not {"paths", "strip_path", "plugins"} & found.keys()
    assert not any("named-route-rule" in item for item in found["tags"])


def test_s13_1_protocols_come_from_the_listeners() -> None:
    rule = {"backendRefs": [ref()], "matches": [match()]}
    both = draw(http_route("r", rule), service(), gateway(HTTPS, HTTP))
    assert only(routes(both))["protocols"] == ["http", "https"]
    one = http_route("r", rule, spec={"parentRefs": [{"name": "gw", "sectionName": "https"}]})
    assert only(routes(draw(one, service(), gateway(HTTPS, HTTP))))["protocols"] == ["https"]
    assert "protocols" not in only(routes(draw(one, service())))


def test_s13_1_rule_names_become_tags() -> None:
    rules = [{"name": name, "backendRefs": [ref()], "matches": [match("/a"), match("/b")]} for name in ("one", "two")]
    found = only(routes(draw(http_route("r", *rules), service())))
    assert [item for item in found["tags"] if "named" in item] == [
        "k8s-named-route-rule:one",
        "k8s-named-route-rule:one",
        "k8s-named-route-rule:two",
        "k8s-named-route-rule:two",
    ]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("10s", 10_000), ("1h30m", 5_400_000), ("500ms", 500), ("60s", None), ("1m", None), (None, None), ("x", None)],
)
def test_s13_1_backend_timeouts(text: str | None, milliseconds: int | None) -> None:
    rule = {"backendRefs": [ref()], "timeouts": {"request": "1s", "backendRequest": text}}
    entity = only(services(draw(http_route("r", rule), service())))
    expected = milliseconds or 60_000
    assert [entity[f"{name}_timeout"] for name in ("connect", "read", "write")] == [expected] * 3


def test_fields_that_kong_has_nothing_for_are_problems() -> None:
    rule = {"backendRefs": [ref(filters=[redirect()])], "timeouts": {"request": "1s"}}
    http = draw(http_route("r", rule), service())
    assert reasons(http) == [("FieldIgnored", "HTTPRoute/r")] * 2
    grpc = draw(grpc_route({"backendRefs": [ref()], "filters": [{"type": "ResponseHeaderModifier"}]}), service())
    assert reasons(grpc) == [("FieldIgnored", "GRPCRoute/g")]
    assert routes(grpc)


def test_durations_have_limits() -> None:
    assert parse_duration("1h2m3s4ms") == 3_723_004
    assert parse_duration("999999s") is None
    assert parse_duration("1h1h1h1h1h") is None


@pytest.mark.parametrize("rules", [[], [{"matches": [match(queryParams=[{"name": "q", "value": "1"}])]}]])
def test_s13_1_routes_that_are_not_valid(rules: list[Any]) -> None:
    rendered = draw(http_route("r", *rules), service())
    assert not services(rendered)
    assert [who for _, who in reasons(rendered)] == ["HTTPRoute/r"]


def filtered(*filters: dict[str, Any], value: str = "/x", **settings: Any) -> dict[str, Any]:
    rule = {"backendRefs": [ref()], "matches": [match(value)], "filters": list(filters)}
    return only(routes(draw(http_route("r", rule), service(), **settings)))


def modifier(kind: str, **change: Any) -> dict[str, Any]:
    field = kind[0].lower() + kind[1:]
    return {"type": kind, field: change}


def headers(**values: str) -> list[dict[str, str]]:
    return [{"name": name, "value": text} for name, text in values.items()]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("RequestHeaderModifier", "request-transformer"), ("ResponseHeaderModifier", "response-transformer")],
)
def test_s13_1_header_modifiers(kind: str, name: str) -> None:
    change = modifier(kind, set=headers(a="1", b=""), add=headers(c="2"), remove=["d"])
    (found,) = filtered(change)["plugins"]
    assert found["name"] == name
    assert found["config"] == {
        "replace": {"headers": ["a:1", "b"]},
        "add": {"headers": ["a:1", "b"]},
        "append": {"headers": ["c:2"]},
        "remove": {"headers": ["d"]},
    }
    assert found["tags"][0] == "k8s-name:r"


def test_s13_1_modifiers_of_one_kind_are_merged() -> None:
    hostname = {"type": "URLRewrite", "urlRewrite": {"hostname": "h.org"}}
    full = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/f"}}}
    (found,) = filtered(modifier("RequestHeaderModifier", set=headers(a="1")), hostname, full)["plugins"]
    assert found["config"] == {
        "replace": {"headers": ["a:1", "host:h.org"], "uri": "/f"},
        "add": {"headers": ["a:1", "host:h.org"]},
    }


def redirect(**fields: Any) -> dict[str, Any]:
    return {"type": "RequestRedirect", "requestRedirect": {"statusCode": 301, **fields}}


FULL = {"type": "ReplaceFullPath", "replaceFullPath": "/full"}


@pytest.mark.parametrize(
    ("fields", "location"),
    [
        ({"hostname": "h.org"}, "http://h.org/x"),
        ({"hostname": "h.org", "scheme": "https", "port": 8443}, "https://h.org:8443/x"),
        ({"hostname": "h.org", "path": FULL}, "http://h.org/full"),
        ({"path": FULL}, "/full"),
        ({}, "/x"),
    ],
)
def test_s13_1_redirects_without_the_redirect_plugin(fields: dict[str, Any], location: str) -> None:
    response, termination = filtered(redirect(**fields))["plugins"]
    assert (termination["name"], termination["config"]) == ("request-termination", {"status_code": 301})
    assert (response["name"], response["config"]) == (
        "response-transformer",
        {"add": {"headers": [f"Location:{location}"]}},
    )


@pytest.mark.parametrize(
    ("fields", "location", "keeps"),
    [
        ({"hostname": "h.org"}, "http://h.org", True),
        ({"hostname": "h.org", "path": FULL}, "http://h.org/full", False),
        ({"path": FULL}, "/full", False),
        ({}, "/", True),
    ],
)
def test_s13_1_redirects_with_the_redirect_plugin(fields: dict[str, Any], location: str, keeps: bool) -> None:
    (found,) = filtered(redirect(**fields), SupportRedirectPlugin=True)["plugins"]
    assert (found["name"], found["config"]) == (
        "redirect",
        {"status_code": 301, "location": location, "keep_incoming_path": keeps},
    )


def test_s13_1_redirects_give_a_route_per_match_that_accumulates() -> None:
    matches = [match("/a", "Exact"), match("/b", "Exact")]
    rule = {"backendRefs": [ref()], "matches": matches, "filters": [redirect()]}
    first, second = only(services(draw(http_route("r", rule), service())))["routes"]
    assert first["name"] == second["name"] == "httproute.ns.r.0.0"
    assert (first["paths"], second["paths"]) == (["~/a$"], ["~/a$", "~/b$"])
    assert (len(first["plugins"]), len(second["plugins"])) == (2, 4)


def prefix(replacement: str | None) -> dict[str, Any]:
    path: dict[str, Any] = {"type": "ReplacePrefixMatch"}
    if replacement is not None:
        path["replacePrefixMatch"] = replacement
    return {"type": "URLRewrite", "urlRewrite": {"path": path}}


@pytest.mark.parametrize(
    ("value", "replacement", "uri", "paths"),
    [
        ("/a", "/b", "/b$(uri_captures[1])", ["~/a$", "~/a(/.*)"]),
        ("/a/", "/b/", "/b$(uri_captures[1])", ["~/a$", "~/a(/.*)"]),
        ("/", "/b", '/b$(uri_captures[1] == nil and "" or "/" .. uri_captures[1])', ["~/$", "~/(.*)"]),
        ("/a", "/", '$(uri_captures[1] == nil and "/" or uri_captures[1])', ["~/a$", "~/a(/.*)"]),
        ("/a", "", '$(uri_captures[1] == nil and "/" or uri_captures[1])', ["~/a$", "~/a(/.*)"]),
        ("/", "/", '$(uri_captures[1] == nil and "/" or "/" .. uri_captures[1])', ["~/$", "~/(.*)"]),
        ("/a", None, "/", ["~/$", "~/(.*)"]),
    ],
)
def test_s13_1_replaced_prefixes(value: str, replacement: str | None, uri: str, paths: list[str]) -> None:
    found = filtered(prefix(replacement), value=value)
    assert found["paths"] == paths
    assert found["plugins"][0]["config"] == {"replace": {"uri": uri}}


def test_s13_1_extension_refs() -> None:
    extension = {"type": "ExtensionRef", "extensionRef": {"group": KONG, "kind": "KongPlugin", "name": "plug"}}
    rule = {"backendRefs": [ref()], "matches": [match()], "filters": [extension]}
    document = draw(http_route("r", rule), service(), plugin()).document
    assert [entry["route"] for entry in document["plugins"]] == ["httproute.ns.r.0.0"]
    extension["extensionRef"] = {"group": KONG, "kind": "Other", "name": "plug"}
    assert reasons(draw(http_route("r", rule), service())) == [("RouteUnsupported", "HTTPRoute/r")]


@pytest.mark.parametrize("kind", ["RequestMirror", "CORS", ""])
def test_s13_1_other_filters_drop_the_service_of_the_group(kind: str) -> None:
    rules = [
        {"backendRefs": [ref()], "matches": [match()], "filters": [{"type": kind}]},
        {"backendRefs": [ref("b")], "matches": [match()]},
    ]
    rendered = draw(http_route("r", *rules), service(), service("b"))
    assert list(services(rendered)) == ["httproute.ns.r.1"]
    (problem,) = rendered.problems
    assert f"httpFilter {kind} unsupported" in problem.message


def test_s13_1_combined_services() -> None:
    rule = {"backendRefs": [ref("b", weight=2), ref("a")], "matches": [match()]}
    other = {"backendRefs": [ref("a"), ref("b", weight=2)], "matches": [match("/y")]}
    values = [
        http_route("one", rule, {"matches": [match("/n")]}),
        http_route("two", other),
        service("a"),
        service("b"),
    ]
    rendered = draw(*values, CombinedServicesFromDifferentHTTPRoutes=True)
    assert sorted(services(rendered)) == ["httproute.ns.svc._", "httproute.ns.svc.ns.a.80_ns.b.80.2"]
    assert sorted(routes(rendered)) == ["httproute.ns.one.0.0", "httproute.ns.one.1.0", "httproute.ns.two.0.0"]


def test_s13_1_long_combined_names_are_shortened() -> None:
    names = [f"{letter * 60}" for letter in "abcdefghij"]
    rule = {"backendRefs": [ref(name) for name in names], "matches": [match()]}
    rendered = draw(http_route("r", rule), *map(service, names), CombinedServicesFromDifferentHTTPRoutes=True)
    name = only(services(rendered))["name"]
    assert name.startswith(f"httproute.ns.svc.ns.{'a' * 60}.80_combined.")
    assert len(name.rpartition(".")[2]) == 64


def grpc_route(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return make("GRPCRoute", "g", spec={"parentRefs": [{"name": "gw"}], "rules": list(rules), **spec})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ({"service": "S", "method": "M"}, "~/S/M"),
        ({"service": "S"}, "~/S/"),
        ({"method": "M"}, "~/.+/M"),
        ({"type": "RegularExpression", "service": "S"}, "~/S/.+"),
        ({"type": "RegularExpression"}, "~/.+/.+"),
    ],
)
def test_s13_2_grpc_methods(method: dict[str, str], path: str) -> None:
    rule = {"backendRefs": [ref()], "matches": [{"method": method}]}
    assert only(routes(draw(grpc_route(rule), service())))["paths"] == [path]


def test_s13_2_grpc_hosts_headers_and_protocols() -> None:
    named = [{**HTTP, "hostname": "l.org"}, HTTPS]
    header = [{"name": "h", "value": "1"}, {"name": "h", "value": "2", "type": "RegularExpression"}]
    rendered = draw(
        grpc_route({"backendRefs": [ref()], "matches": [{"headers": header}]}), service(), gateway(*named)
    )
    route = only(routes(rendered))
    assert (route["hosts"], route["headers"], route["protocols"]) == (["l.org"], {"h": ["1", "2"]}, ["grpc", "grpcs"])
    assert only(services(rendered))["protocol"] == "grpc"
    assert "paths" not in route
    gone = grpc_route({"backendRefs": [ref()]}, parentRefs=[{"name": "gw"}, {"name": "gone"}])
    assert "hosts" not in only(routes(draw(gone, service(), gateway(*named))))


def test_s13_2_grpc_rules_without_matches() -> None:
    rule = {"backendRefs": [ref()]}
    assert only(routes(draw(grpc_route(rule), service())))["paths"] == ["/"]
    assert "paths" not in only(routes(draw(grpc_route(rule, hostnames=["h.org"]), service())))


def test_s13_2_a_grpc_service_with_several_backends_has_no_tags() -> None:
    rendered = draw(grpc_route({"backendRefs": [ref("a"), ref("b")]}), service("a"), service("b"))
    assert "tags" not in only(services(rendered))


def stream(kind: str, *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    status = fields.pop("status", {})
    return make(kind, "s", spec={"parentRefs": [{"name": "gw"}], "rules": list(rules), **fields}, status=status)


@pytest.mark.parametrize("kind", ["TCPRoute", "UDPRoute"])
def test_s13_3_stream_routes(kind: str) -> None:
    protocol = kind[:3].lower()
    listeners = [{"name": "a", "protocol": kind[:3], "port": 1}, {"name": "b", "protocol": "HTTP", "port": 2}]
    rendered = draw(stream(kind, {"name": "n", "backendRefs": [ref()]}), service(), gateway(*listeners))
    route = routes(rendered)[f"{protocol}route.ns.s.0.0"]
    assert (route["protocols"], route["destinations"]) == ([protocol], [{"port": 1}])
    assert route["tags"][-1] == "k8s-named-route-rule:n"
    assert only(services(rendered))["protocol"] == protocol


def test_s13_3_rules_without_backends() -> None:
    rules = [{"backendRefs": [ref()]}, {}, {"backendRefs": [ref()]}]
    tcp = draw(stream("TCPRoute", *rules), service())
    assert list(services(tcp)) == ["tcproute.ns.s.0"]
    udp = draw(stream("UDPRoute", *rules), service())
    assert not services(udp)
    assert reasons(tcp) == [("RouteInvalid", "TCPRoute/s")]
    assert reasons(udp) == [("RouteInvalid", "UDPRoute/s")]
    assert not services(draw(stream("UDPRoute"), service()))


def test_s13_3_tls_routes() -> None:
    passing = {"name": "pass", "protocol": "TLS", "port": 443, "tls": {"mode": "Passthrough"}}
    value = stream("TLSRoute", {"backendRefs": [ref()]}, hostnames=["t.org"])
    route = only(routes(draw(value, service(), gateway(passing))))
    assert (route["protocols"], route["snis"]) == (["tls"], ["t.org"])
    assert "destinations" not in route
    value["status"] = {"parents": [{"parentRef": {"name": "gw", "sectionName": "pass"}}]}
    assert only(routes(draw(value, service(), gateway(passing))))["protocols"] == ["tls_passthrough"]
    assert reasons(draw(stream("TLSRoute", {"backendRefs": [ref()]}), service())) == [("RouteInvalid", "TLSRoute/s")]


def test_s13_3_stream_services_are_not_terminated() -> None:
    assert "plugins" not in only(services(draw(stream("TCPRoute", {"backendRefs": [ref("gone")]}))))


def test_s8_plugins_of_gateway_routes() -> None:
    value = http_route("r", {"backendRefs": [ref()], "matches": [match()]}, annotations=konghq(plugins="plug"))
    document = draw(value, service(), plugin()).document
    assert [entry["route"] for entry in document["plugins"]] == ["httproute.ns.r.0.0"]
