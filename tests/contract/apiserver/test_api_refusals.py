"""Requests that cannot be served, and the Status bodies that say so."""

from __future__ import annotations

import pytest
from api_wire import Api, configmap, pod


async def test_status_body_is_complete(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods/nope")
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'pods "nope" not found',
        "reason": "NotFound",
        "details": {"name": "nope", "kind": "pods"},
        "code": 404,
    }


async def test_malformed_json(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/configmaps", raw=b"{nope")
    assert (answer.status, answer.reason) == (400, "BadRequest")


async def test_foreign_kind(api: Api, ns: str) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods", body)
    assert (answer.status, answer.reason) == (400, "BadRequest")


async def test_wrong_type_is_a_bad_request(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods", pod("p", terminationGracePeriodSeconds="soon"))
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert "cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds" in answer.message


async def test_content_type_that_is_not_understood(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods", raw=b"x", content_type="text/plain")
    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")


async def test_representation_that_is_not_available(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods", accept="text/html")
    assert (answer.status, answer.reason) == (406, "NotAcceptable")


async def test_verb_that_is_not_served(api: Api, ns: str) -> None:
    answer = await api.send("PUT", f"/api/v1/namespaces/{ns}/configmaps", configmap("a"))
    assert (answer.status, answer.reason) == (405, "MethodNotAllowed")


async def test_resource_that_is_not_served(api: Api) -> None:
    assert (await api.send("GET", "/api/v1/widgets")).status == 404
    assert (await api.send("GET", "/apis/nope.example.org/v1/widgets")).status == 404


async def test_body_larger_than_the_limit(api: Api, ns: str) -> None:
    body = configmap("a", {"x": "y" * (3 * 1024 * 1024 + 1000)})
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/configmaps", body)
    assert (answer.status, answer.reason) == (413, "RequestEntityTooLarge")


async def test_unknown_field_strict(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods?fieldValidation=Strict", pod("p", nope=1))
    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.nope"' in answer.message


async def test_unknown_field_warns(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods?fieldValidation=Warn", pod("p", nope=1))
    assert answer.status == 201
    assert answer.headers["Warning"] == '299 - "unknown field \\"spec.nope\\""'
    assert "nope" not in answer.body["spec"]


async def test_unknown_field_ignored(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods?fieldValidation=Ignore", pod("p", nope=1))
    assert answer.status == 201
    assert "Warning" not in answer.headers


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("labelSelector=a%3D%3D%3Db", 400),
        ("fieldSelector=spec.nope%3Dx", 400),
        ("resourceVersion=abc", 400),
        ("limit=1&continue=nonsense", 400),
        ("resourceVersionMatch=Exact", 422),
    ],
)
async def test_list_options_that_make_no_sense(api: Api, ns: str, query: str, status: int) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods?{query}")
    assert answer.status in (status, 400 if status == 422 else status), answer.body
    assert answer.body["kind"] == "Status"


async def test_list_of_a_future_version(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods?resourceVersion=99999999999")
    assert (answer.status, answer.reason) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
