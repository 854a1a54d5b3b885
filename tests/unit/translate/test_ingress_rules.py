"""Section 4: Kong services, Ingress routes, facades, default backends, rewrites, path conversion."""

from __future__ import annotations

import pytest
from made_objects import (
    INCUBATOR,
    draw,
    http_route,
    ingress,
    konghq,
    make,
    only,
    path,
    reasons,
    ref,
    routes,
    service,
    services,
    upstreams,
)

from konverge.translate.ingress import RewriteError, rewrite_uri
from konverge.translate.paths import clean_path, convert_path, mark_regex


@pytest.mark.parametrize(
    ("text", "kind", "paths"),
    [
        ("/", "Prefix", ["/"]),
        ("/a", "Prefix", ["/a/", "~/a$"]),
        ("/a/", "Prefix", ["/a/", "~/a$"]),
        ("//a//b", "Prefix", ["/a/b/", "~/a/b$"]),
        ("/a/", "Exact", ["~/a/$"]),
        ("/", "Exact", ["~/$"]),
        ("/a", "ImplementationSpecific", ["/a"]),
        ("/~/v\\d+", "ImplementationSpecific", ["~/v\\d+"]),
        (None, None, ["/"]),
        ("", None, ["/"]),
    ],
)
def test_s4_2_path_conversion(text: str | None, kind: str | None, paths: list[str]) -> None:
    assert only(routes(draw(ingress("i", path(text, kind)), service())))["paths"] == paths


def test_s4_2_an_unknown_path_type_gives_no_path() -> None:
    assert convert_path("/a", "Odd") == []
    assert clean_path("a///b") == "a/b"


def test_s4_2_the_example_of_one_route_with_two_paths() -> None:
    value = ingress("i", path("/a"), path("/~/b", "ImplementationSpecific"))
    assert only(routes(draw(value, service())))["paths"] == ["/a/", "~/a$", "~/b"]


def test_s4_2_the_regex_prefix_annotation() -> None:
    value = ingress("i", path("/@/b", "ImplementationSpecific"), annotations=konghq(regex_prefix="/@"))
    assert only(routes(draw(value, service())))["paths"] == ["~/b"]
    assert mark_regex("/b", "", legacy=False) == "~/b"
    assert mark_regex("/b$", "/~", legacy=True) == "~/b$"
    assert mark_regex("/b%20", "/~", legacy=True) == "/b%20"


def test_s4_1_paths_of_one_host_and_backend_share_a_route() -> None:
    value = ingress("i", path("/a", "Exact"), path("/b", "Exact"), path("/c", "Exact", port=90), host="*.x.org")
    rendered = draw(value, service(ports=(80, 90)))
    assert list(routes(rendered)) == ["ns.i.svc._.x.org.90", "ns.i.svc._.x.org.80"]
    route = routes(rendered)["ns.i.svc._.x.org.80"]
    assert route["paths"] == ["~/a$", "~/b$"]
    assert route["hosts"] == ["*.x.org"]


def test_s4_1_routes_of_several_ingresses_hang_under_one_service() -> None:
    rendered = draw(ingress("one"), ingress("two"), service())
    assert [route["name"] for route in only(services(rendered))["routes"]] == ["ns.two.svc..80", "ns.one.svc..80"]


def test_s4_1_ports_by_name_and_implicit() -> None:
    ports = [{"name": "web", "port": 8080}]
    rendered = draw(ingress("i", path(port="web"), path("/b", port=None)), service(ports=ports))
    found = services(rendered)
    assert found.keys() == {"ns.svc.web", "ns.svc.implicitPort"}
    assert {entity["port"] for entity in found.values()} == {8080}
    assert "svc.ns.implicitPort.svc" in upstreams(rendered)


def test_s4_a_missing_service_leaves_the_route_without_targets() -> None:
    rendered = draw(ingress())
    assert reasons(rendered) == [("BackendNotFound", "Ingress/ing")]
    assert only(services(rendered))["tags"][0] == "k8s-name:UNKNOWN"
    assert "targets" not in only(upstreams(rendered))
    assert len(routes(rendered)) == 1


def facade(name: str = "fac", **fields: object) -> dict[str, object]:
    return make("KongServiceFacade", name, spec={"backendRef": {"name": "svc", "port": 80}}, **fields)


def to_facade(name: str = "fac", **fields: str) -> dict[str, object]:
    resource = {"apiGroup": INCUBATOR, "kind": "KongServiceFacade", "name": name, **fields}
    return {"path": "/f", "pathType": "Exact", "backend": {"resource": resource}}


@pytest.mark.parametrize("wrong", [{"name": "missing"}, {"kind": "Other"}, {"apiGroup": "x"}])
def test_s4_1_a_resource_backend_that_cannot_be_used_loses_its_path_only(wrong: dict[str, str]) -> None:
    value = ingress("i", to_facade(**{"name": "fac", **wrong}), path("/ok"))
    rendered = draw(value, service(), facade(), KongServiceFacade=True)
    assert reasons(rendered) == [("UnsupportedBackend", "Ingress/i")]
    assert list(services(rendered)) == ["ns.svc.80"]


def test_s4_1_the_facade_feature_is_off_by_default() -> None:
    rendered = draw(ingress("i", to_facade()), service(), facade())
    assert not services(rendered)
    assert reasons(rendered) == [("UnsupportedBackend", "Ingress/i")]


def test_s4_a_facades_annotations_are_laid_over_the_services() -> None:
    svc = service(annotations=konghq(path="/svc", read_timeout="1"))
    value = facade(annotations=konghq(path="/fac"))
    entity = only(services(draw(ingress("i", to_facade()), svc, value, KongServiceFacade=True)))
    assert (entity["path"], entity["read_timeout"]) == ("/fac", 1)
    assert "k8s-kind:KongServiceFacade" in entity["tags"]


def test_s4_1_only_the_oldest_default_backend_counts() -> None:
    def with_default(name: str, created: int) -> dict[str, object]:
        backend = {"service": {"name": name, "port": {"number": 80}}}
        spec = {"ingressClassName": "kong", "defaultBackend": backend}
        return make("Ingress", name, spec=spec, created=created)

    rendered = draw(with_default("young", 2), with_default("old", 1), service("young"), service("old"))
    assert list(routes(rendered)) == ["ns.old"]
    assert "path" not in only(services(rendered))


def test_s4_1_a_default_backend_joins_the_service_of_a_rule() -> None:
    backend = {"service": {"name": "svc", "port": {"number": 80}}}
    value = ingress("i", path("/a", "Exact"), spec={"defaultBackend": backend}, annotations=konghq(regex_prefix=""))
    rendered = draw(value, service())
    assert only(services(rendered))["path"] == "/"
    assert routes(rendered)["ns.i"]["paths"] == ["~/"]
    assert "protocols" not in routes(rendered)["ns.i"]


def test_s4_1_a_rewrite_without_the_feature_drops_the_service_of_everybody() -> None:
    rendered = draw(ingress("one", annotations=konghq(rewrite="/x")), ingress("two"), service())
    assert not services(rendered)
    assert "svc.ns.80.svc" not in upstreams(rendered)
    assert reasons(rendered) == [("RewriteNotAllowed", "Ingress/one")]


def test_s4_1_a_rewrite_becomes_a_plugin_without_tags() -> None:
    value = ingress("i", path("/~/a/(\\d+)", "ImplementationSpecific"), annotations=konghq(rewrite="/b/$1\\$"))
    (found,) = only(routes(draw(value, service(), RewriteURIs=True)))["plugins"]
    assert found == {"name": "request-transformer", "config": {"replace": {"uri": "/b/$(uri_captures[1])$"}}}


@pytest.mark.parametrize(
    ("text", "uri"),
    [("/a/$1/$22", "/a/$(uri_captures[1])/$(uri_captures[22])"), ("/\\$1", "/$1"), ("plain", "plain")],
)
def test_s4_1_rewrite_texts(text: str, uri: str) -> None:
    assert rewrite_uri(text) == uri


@pytest.mark.parametrize("text", ["/a$", "/a\\", "/\\x", "/$a"])
def test_s4_1_malformed_rewrites(text: str) -> None:
    with pytest.raises(RewriteError):
        rewrite_uri(text)
    rendered = draw(ingress(annotations=konghq(rewrite=text)), service(), RewriteURIs=True)
    assert not services(rendered)
    assert reasons(rendered) == [("RewriteMalformed", "Ingress/ing")]


def test_s4_1_the_default_backend_survives_the_rewrite_check() -> None:
    backend = {"service": {"name": "svc", "port": {"number": 80}}}
    value = ingress("i", spec={"defaultBackend": backend}, annotations=konghq(rewrite="/x"))
    rendered = draw(value, service())
    assert list(routes(rendered)) == ["ns.i"]
    assert "path" not in only(services(rendered))


def test_s4_services_that_are_annotated_differently_cannot_share_a_route() -> None:
    values = [service("one", annotations=konghq(retries="1")), service("two")]
    rendered = draw(http_route("r", {"backendRefs": [ref("one"), ref("two")]}), *values)
    assert not services(rendered)
    assert only(upstreams(rendered)) == {"name": "httproute.ns.r.0", "algorithm": "round-robin"}
    assert reasons(rendered) == [("AnnotationsDiffer", "Service/one"), ("AnnotationsDiffer", "Service/two")]


def test_s4_tags_of_a_service_with_several_backends_are_those_of_its_parent() -> None:
    rendered = draw(http_route("r", {"backendRefs": [ref("svc"), ref("svc", 81)]}), service(ports=(80, 81)))
    assert only(services(rendered))["tags"][0] == "k8s-name:r"
    assert only(services(rendered))["port"] == 81
