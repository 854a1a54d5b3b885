"""Section 14: expressions and priorities."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    draw,
    gateway,
    http_route,
    ingress,
    konghq,
    make,
    match,
    only,
    path,
    ref,
    routes,
    service,
    services,
)

from konverge.translate.expressions.matching import either, every, match_hosts, quote


def express(*objects: Any) -> dict[str, Any]:
    return only(routes(draw(*objects, service(), ExpressionRoutes=True)))


def test_s14_joining_and_quoting() -> None:
    assert every(["a", "", "b"]) == "(a) && (b)"
    assert either(["a"]) == "a"
    assert every([]) == ""
    assert quote('a"\\\n\t\r') == '"a\\"\\\\\\n\\t\\r"'
    assert match_hosts(["*.a.b", "c", "-bad"]) == '(http.host =^ ".a.b") || (http.host == "c")'


@pytest.mark.parametrize(
    ("text", "kind", "expression"),
    [
        ("/", "Prefix", 'http.path ^= "/"'),
        ("/x/", "Prefix", '(http.path == "/x") || (http.path ^= "/x/")'),
        ("/x/", "Exact", 'http.path == "/x/"'),
        ("/x", "ImplementationSpecific", 'http.path ^= "/x"'),
        ("/~/v\\d", "ImplementationSpecific", 'http.path ~ "^/v\\\\d"'),
        ("/~^/v", "ImplementationSpecific", 'http.path ~ "^/v"'),
        ("/~", "ImplementationSpecific", 'http.path ~ "^/"'),
    ],
)
def test_s14_ingress_paths(text: str, kind: str, expression: str) -> None:
    found = express(ingress("i", path(text, kind)))
    assert found["expression"] == expression
    assert not {"paths", "hosts", "regex_priority", "path_handling"} & found.keys()


def test_s14_the_documented_example() -> None:
    found = express(ingress("i", path("/x"), host="a.com"))
    assert found["expression"] == '(http.host == "a.com") && ((http.path == "/x") || (http.path ^= "/x/"))'
    assert express(ingress("i", path("/whatever", "Exact"), host="a.com"))["priority"] == 57178899677193


def test_s14_ingress_annotations() -> None:
    annotations = {
        **konghq(host_aliases="b.org,*.c.org,-", methods="get,p-t", snis="s.org,_", regex_prefix=""),
        "konghq.com/headers.x-b": "1,~*2",
        "konghq.com/headers.X-A": "3",
        "konghq.com/headers.host": "4",
    }
    found = express(ingress("i", path("/", "Exact"), host="a.org", annotations=annotations))
    assert found["expression"] == (
        '((http.host == "a.org") || (http.host == "b.org") || (http.host =^ ".c.org"))'
        ' && (http.path == "/")'
        ' && ((http.headers.x_a == "3") && ((http.headers.x_b == "1") || (http.headers.x_b ~ "2")))'
        ' && (http.method == "GET")'
        ' && (tls.sni == "s.org")'
    )
    assert found["priority"] == (3 << 44) + (5 << 41) + (3 << 33) + (0 << 32) + (1 << 16) + 1


@pytest.mark.parametrize(
    ("paths", "host", "low"),
    [
        ([("/", "Prefix")], "", (1 << 41) + (1 << 16) + 1),
        ([("/abc", "Prefix")], "", (1 << 41) + (1 << 16) + 5),
        ([("/abc", "ImplementationSpecific")], "", (1 << 41) + 4),
        ([("/~/a", "ImplementationSpecific")], "", (1 << 41) + (1 << 16) + 2),
        ([("/é", "ImplementationSpecific")], "", (1 << 41) + 3),
        ([("/a", "Exact"), ("/abcdef", "ImplementationSpecific")], "h.org", (2 << 41) + (1 << 32) + (1 << 16) + 7),
        ([("/a", "Exact")], "*.h.org", (2 << 41) + (1 << 16) + 2),
    ],
)
def test_s14_ingress_priorities(paths: list[tuple[str, str]], host: str, low: int) -> None:
    found = express(ingress("i", *(path(*item) for item in paths), host=host))
    assert found["priority"] == (3 << 44) + low


def route(*matches: Any, name: str = "r", created: int = 1, hostnames: Any = (), **rule: Any) -> dict[str, Any]:
    entry = {"backendRefs": [ref()], "matches": list(matches), **rule}
    return http_route(name, entry, spec={"hostnames": list(hostnames)} if hostnames else {}, created=created)


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        (match("/x", "Exact"), 'http.path == "/x"'),
        (match("/"), 'http.path ^= "/"'),
        (match("/x/"), '(http.path == "/x") || (http.path ^= "/x/")'),
        (match("/x.*", "RegularExpression"), 'http.path ~ "^/x.*"'),
        ({"method": "GET"}, 'http.method == "GET"'),
        (
            {"queryParams": [{"name": "b", "value": "1"}, {"name": "a", "value": "2", "type": "RegularExpression"}]},
            '(http.queries.a ~ "2") && (http.queries.b == "1")',
        ),
        ({"headers": [{"name": "X-Y", "value": "1", "type": "Exact"}]}, 'http.headers.x_y == "1"'),
        ({}, '(net.protocol == "http") || (net.protocol == "https")'),
    ],
)
def test_s14_http_matches(given: dict[str, Any], expression: str) -> None:
    assert express(route(given))["expression"] == expression


def test_s14_http_hosts_nest_the_request() -> None:
    value = route(match("/x", "Exact", method="GET"), hostnames=["a.org", "*.b.org"])
    value["metadata"]["annotations"] = konghq(snis="s.org")
    found = routes(draw(value, service(), ExpressionRoutes=True))
    assert found.keys() == {"httproute.ns.r.a.org.0.0", "httproute.ns.r._.b.org.0.0"}
    assert found["httproute.ns.r.a.org.0.0"]["expression"] == (
        '(http.host == "a.org") && (tls.sni == "s.org") && ((http.path == "/x") && (http.method == "GET"))'
    )


def test_s14_http_services_are_grouped_as_in_traditional_mode() -> None:
    rules = [{"backendRefs": [ref()], "matches": [match(text)], "name": text[1:]} for text in ("/a", "/b")]
    rendered = draw(http_route("r", *rules), service(), ExpressionRoutes=True)
    assert list(services(rendered)) == ["httproute.ns.r.0"]
    found = routes(rendered)["httproute.ns.r._.1.0"]
    assert found["tags"][-1] == "k8s-named-route-rule:b"
    assert (found["preserve_host"], found["strip_path"]) == (True, False)


@pytest.mark.parametrize(
    ("given", "host", "upper"),
    [
        (match("/abc", "Exact"), "a.org", (1 << 43) + (5 << 35) + (1 << 34) + (3 << 23)),
        (match("/a.*", "RegularExpression", method="GET"), "*.a.org", (7 << 35) + (1 << 33) + (3 << 23) + (1 << 22)),
        (match("/", headers=[{"name": "a", "value": "1"}]), "", 1 << 17),
        ({"queryParams": [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}]}, "", 2 << 12),
    ],
)
def test_s14_http_priorities(given: dict[str, Any], host: str, upper: int) -> None:
    assert express(route(given, hostnames=[host] if host else ()))["priority"] == (2 << 44) + upper + 4095


def test_s14_ties_are_ranked_by_age_name_rule_and_match() -> None:
    values = [
        route(match("/c", "Exact"), match("/d", "Exact"), name="old", created=1),
        route(match("/b", "Exact"), name="a", created=2),
        route(match("/a", "Exact"), name="b", created=2),
        route(match("/longer", "Exact"), name="c", created=1),
    ]
    found = routes(draw(*values, service(), ExpressionRoutes=True))
    order = {name.split(".")[2] + name[-1]: entity["priority"] & 4095 for name, entity in found.items()}
    assert order == {"old0": 4095, "old1": 4094, "a0": 4093, "b0": 4092, "c0": 4095}


def test_s14_ranks_end_at_zero() -> None:
    matches = [{"method": {"service": "S", "method": "M"}, "headers": []} for _ in range(300)]
    value = make("GRPCRoute", "g", spec={"rules": [{"backendRefs": [ref()], "matches": matches}]})
    found = routes(draw(value, service(), ExpressionRoutes=True))
    assert sorted({entity["priority"] & 255 for entity in found.values()}) == list(range(256))


def test_s14_replaced_prefixes_keep_the_filter() -> None:
    change = {
        "type": "URLRewrite",
        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/n"}},
    }
    found = express(route(match("/x"), filters=[change]))
    assert found["expression"] == '(http.path == "/x") || (http.path ~ "^/x(/.*)")'
    assert found["plugins"][0]["config"] == {"replace": {"uri": "/n$(uri_captures[1])"}}
    assert (
        express(route(match("/"), filters=[change]))["expression"] == '(http.path == "/") || (http.path ~ "^/(.*)")'
    )


@pytest.mark.parametrize(
    ("method", "expression"),
    [
        ({"service": "S", "method": "M"}, 'http.path == "/S/M"'),
        ({"service": "S"}, 'http.path ^= "/S/"'),
        ({"method": "M"}, 'http.path =^ "/M"'),
        ({}, 'http.path ^= "/"'),
        ({"type": "RegularExpression", "method": "M"}, 'http.path ~ "^/.+/M"'),
        ({"type": "RegularExpression"}, 'http.path ^= "/"'),
        (None, '(net.protocol == "http") || (net.protocol == "https")'),
    ],
)
def test_s14_grpc_methods(method: dict[str, str] | None, expression: str) -> None:
    rule = {"backendRefs": [ref()], "matches": [{"method": method} if method is not None else {}]}
    found = express(make("GRPCRoute", "g", spec={"rules": [rule]}))
    assert found["expression"] == expression
    assert found["preserve_host"] is True
    assert "strip_path" not in found


def test_s14_grpc_services_per_host_and_a_termination_per_match() -> None:
    rule = {"backendRefs": [ref("gone")], "matches": [{"method": {"service": name}} for name in ("A", "B")]}
    spec = {"rules": [rule], "hostnames": ["a.org", "*.b.org"], "parentRefs": [{"name": "gw"}]}
    listeners = [{"name": "h", "protocol": "HTTP", "port": 80}, {"name": "s", "protocol": "HTTPS", "port": 443}]
    rendered = draw(make("GRPCRoute", "g", spec=spec), gateway(*listeners), ExpressionRoutes=True)
    assert services(rendered).keys() == {"grpcroute.ns.g.a.org.0", "grpcroute.ns.g._.b.org.0"}
    assert [len(entity["plugins"]) for entity in services(rendered).values()] == [2, 2]
    assert {tuple(entity["protocols"]) for entity in routes(rendered).values()} == {("grpc", "grpcs")}


def test_s14_layer_4() -> None:
    rule = {"port": 9000, "host": "t.org", "backend": {"serviceName": "svc", "servicePort": 80}}
    found = express(make("TCPIngress", annotations=CLASS, spec={"rules": [rule]}))
    assert found["expression"] == '(tls.sni == "t.org") && (net.dst.port == 9000)'
    assert (found["priority"], found["protocols"]) == (1, ["tcp", "tls"])
    assert not {"snis", "destinations"} & found.keys()
    value = make("TCPRoute", "t", spec={"rules": [{"backendRefs": [ref()]}]})
    assert express(value)["expression"] == ""
    listeners = [{"name": name, "protocol": "UDP", "port": port} for name, port in (("a", 1), ("b", 2))]
    spec = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [ref()]}]}
    found = express(make("UDPRoute", "u", spec=spec), gateway(*listeners))
    assert found["expression"] == "(net.dst.port == 1) || (net.dst.port == 2)"
