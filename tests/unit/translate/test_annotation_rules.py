"""Section 6: annotations on Services and on routes."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import CLASS, draw, http_route, ingress, konghq, make, only, reasons, ref, routes, service, services


def service_with(**annotations: str) -> tuple[dict[str, Any], list[Any]]:
    rendered = draw(ingress(), service(annotations=konghq(**annotations)))
    return only(services(rendered)), reasons(rendered)


def route_with(features: dict[str, bool] | None = None, **annotations: str) -> tuple[dict[str, Any], list[Any]]:
    rendered = draw(ingress(annotations=konghq(**annotations)), service(), **(features or {}))
    return only(routes(rendered)), reasons(rendered)


@pytest.mark.parametrize(
    ("annotation", "text", "field", "value"),
    [
        ("path", "/p", "path", "/p"),
        ("path", "p", "path", "/"),
        ("connect_timeout", "+5", "connect_timeout", 5),
        ("read_timeout", " 5", "read_timeout", 60000),
        ("write_timeout", "5s", "write_timeout", 60000),
        ("retries", "-1", "retries", -1),
        ("retries", "99999999999999999999", "retries", 5),
        ("protocol", "wss", "protocol", "wss"),
        ("tls_verify", "T", "tls_verify", True),
        ("tls_verify", "0", "tls_verify", False),
        ("tls_verify", "yes", "tls_verify", None),
        ("tls_verify_depth", "3", "tls_verify_depth", 3),
    ],
)
def test_s6_service_annotations(annotation: str, text: str, field: str, value: Any) -> None:
    found, problems = service_with(**{annotation: text})
    assert found.get(field) == value
    assert not problems


def test_s6_an_invalid_protocol_stops_all_annotations_of_the_group() -> None:
    found, problems = service_with(protocol="udp", retries="1", path="/p")
    assert (found["protocol"], found["retries"], found["path"]) == ("http", 5, "/")
    assert problems == [("ProtocolInvalid", "Service/svc")]


@pytest.mark.parametrize("protocol", ["grpc", "grpcs"])
def test_s6_grpc_services_have_no_path(protocol: str) -> None:
    found, _ = service_with(protocol=protocol, path="/p")
    assert "path" not in found


@pytest.mark.parametrize(
    ("annotation", "text", "field", "value"),
    [
        ("strip_path", "TRUE", "strip_path", True),
        ("strip_path", "1", "strip_path", False),
        ("https_redirect_status_code", "301", "https_redirect_status_code", 301),
        ("https_redirect_status_code", "303", "https_redirect_status_code", 426),
        ("preserve_host", "False", "preserve_host", False),
        ("request_buffering", "F", "request_buffering", False),
        ("response_buffering", "no", "response_buffering", True),
        ("protocols", "https, http", "protocols", ["https", "http"]),
        ("regex_priority", "7", "regex_priority", 7),
        ("regex_priority", "x", "regex_priority", 0),
        ("methods", "get,Post", "methods", ["GET", "POST"]),
        ("methods", "get,p-t", "methods", None),
        ("snis", "a.example.com, b", "snis", ["a.example.com", "b"]),
        ("snis", "a_b", "snis", None),
        ("host_aliases", "x.org,x.org,*.y.org", "hosts", ["x.org", "*.y.org"]),
        ("host_aliases", "x.org,-y", "hosts", None),
        ("path_handling", "v1", "path_handling", "v1"),
        ("path_handling", "one", "path_handling", "v0"),
    ],
)
def test_s6_route_annotations(annotation: str, text: str, field: str, value: Any) -> None:
    found, _ = route_with(**{annotation: text})
    assert found.get(field) == value


def test_s6_an_annotation_that_cannot_be_read_is_a_problem() -> None:
    _, problems = route_with(regex_priority="x", methods="p-t")
    assert problems == [("AnnotationInvalid", "Ingress/ing")] * 2


def test_s6_ingress_protocols_start_sorted_and_unvalidated() -> None:
    found, _ = route_with(protocols="tls,http,bad")
    assert found["protocols"] == ["bad", "http", "tls"]
    route = http_route("r", {"backendRefs": [ref()]}, annotations=konghq(protocols="http,bad"))
    assert "protocols" not in only(routes(draw(route, service())))


@pytest.mark.parametrize(
    ("protocols", "result"),
    [
        (None, ["https"]),
        ("http", ["https"]),
        ("grpc", ["grpcs"]),
    ],
)
def test_s6_force_ssl_redirect(protocols: str | None, result: list[str]) -> None:
    annotations = {"ingress.kubernetes.io/force-ssl-redirect": "true"}
    value = ingress(annotations=annotations)
    found = only(routes(draw(value, service())))
    assert (found["protocols"], found["https_redirect_status_code"]) == (["https"], 302)
    if protocols:  # an annotation that is not valid as a whole stays as the start value
        value = ingress(annotations={**annotations, **konghq(protocols=f"{protocols},bad")})
        assert only(routes(draw(value, service())))["protocols"] == result


def test_s6_force_ssl_redirect_is_only_the_exact_word_true() -> None:
    value = ingress(annotations={"ingress.kubernetes.io/force-ssl-redirect": "True"})
    assert only(routes(draw(value, service())))["https_redirect_status_code"] == 426


@pytest.mark.parametrize(
    ("protocols", "result", "strips"),
    [
        ("grpc,http", ["http", "https"], False),
        ("grpc,tls", ["grpc", "tls"], False),
        ("grpc,grpcs", ["grpc", "grpcs"], False),
        ("http,https", ["http", "https"], True),
    ],
)
def test_s6_protocols_are_normalised(protocols: str, result: list[str], strips: bool) -> None:
    found, _ = route_with(protocols=protocols)
    assert found["protocols"] == result
    assert ("strip_path" in found) is strips


def test_s6_header_annotations() -> None:
    annotations = {
        "konghq.com/headers.x-one": "a, b,,",
        "konghq.com/headers.x-two": " ",
        "konghq.com/headers.": "c",
    }
    assert only(routes(draw(ingress(annotations=annotations), service())))["headers"] == {"x-one": ["a", "b"]}
    annotations["konghq.com/headers-separator"] = ";"
    assert only(routes(draw(ingress(annotations=annotations), service())))["headers"] == {"x-one": ["a, b,,"]}


def test_s6_an_empty_snis_annotation_removes_server_names() -> None:
    rule = {"host": "t.example.com", "port": 9000, "backend": {"serviceName": "svc", "servicePort": 80}}
    value = make("TCPIngress", "t", annotations={**CLASS, **konghq(snis="")}, spec={"rules": [rule]})
    assert "snis" not in only(routes(draw(value, service())))


def test_s6_matching_annotations_are_skipped_for_expression_routes() -> None:
    found, _ = route_with({"ExpressionRoutes": True}, regex_priority="1", path_handling="v1", strip_path="true")
    assert found["strip_path"] is True
    assert "regex_priority" not in found
    assert "path_handling" not in found


def test_s6_later_services_win() -> None:
    annotations = konghq(retries="3")
    values = [service("a", annotations=annotations), service("b", annotations=annotations)]
    found = only(services(draw(http_route("r", {"backendRefs": [ref("b"), ref("a")]}), *values)))
    assert found["retries"] == 3
