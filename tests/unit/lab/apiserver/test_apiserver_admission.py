"""Validating webhooks, versions of one custom resource, protobuf over the wire."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from apiserver_wire import Wire

from konverge.lab.apiserver import ApiServer
from konverge.lab.apiserver.certificates import Authority

MAPS = "/api/v1/namespaces/default/configmaps"
HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@dataclass
class Hook:
    """Refuses objects that carry the label ``bad``."""

    url: str = ""
    reviews: list[Any] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        review = (await request.json())["request"]
        self.reviews.append(review)
        bad = "bad" in (review["object"]["metadata"].get("labels") or {})
        answer: dict[str, Any] = {"uid": review["uid"], "allowed": not bad, "warnings": ["seen"]}
        if bad:
            answer["status"] = {"message": "this is bad", "code": 400}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer})


@pytest.fixture
async def hook(server: ApiServer, wire: Wire) -> AsyncIterator[Hook]:
    pair = Authority.load(server.directory).sign_server(["127.0.0.1"])
    certificate, key = server.directory / "hook.crt", server.directory / "hook.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    fake = Hook()
    app = web.Application()
    app.router.add_post("/validate", fake.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    fake.url = f"https://127.0.0.1:{runner.addresses[0][1]}/validate"
    yield fake
    await runner.cleanup()


def configuration(url: str, ca: bytes, policy: str = "Fail") -> dict[str, Any]:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}
    entry = {
        "name": "check.example.org",
        "clientConfig": {"url": url, "caBundle": base64.b64encode(ca).decode()},
        "rules": [rule],
        "failurePolicy": policy,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    return {"metadata": {"name": "v"}, "webhooks": [entry]}


async def test_webhook_refuses_and_warns(server: ApiServer, wire: Wire, hook: Hook) -> None:
    ca = (server.directory / "ca.crt").read_bytes()
    assert (await wire.send("POST", HOOKS, configuration(hook.url, ca)))[0] == 201
    assert (await wire.send("POST", MAPS, {"metadata": {"name": "a"}}))[0] == 201
    code, body = await wire.send("POST", MAPS, {"metadata": {"name": "b", "labels": {"bad": ""}}})
    assert code == 400
    assert body["message"] == 'admission webhook "check.example.org" denied the request: this is bad'
    assert (await wire.send("GET", f"{MAPS}/b"))[0] == 404
    assert [(r["operation"], r["object"]["metadata"]["name"]) for r in hook.reviews] == [
        ("CREATE", "a"),
        ("CREATE", "b"),
    ]
    merge = "application/merge-patch+json"
    patch = {"metadata": {"labels": {"bad": "1"}}}
    assert (await wire.send("PATCH", f"{MAPS}/a", patch, merge))[0] == 400
    assert hook.reviews[-1]["oldObject"]["metadata"]["name"] == "a"
    assert (await wire.send("POST", "/api/v1/namespaces/default/secrets", {"metadata": {"name": "s"}}))[0] == 201


async def test_webhook_that_is_down(server: ApiServer, wire: Wire) -> None:
    ca = (server.directory / "ca.crt").read_bytes()
    await wire.send("POST", HOOKS, configuration("https://127.0.0.1:1/", ca))
    code, body = await wire.send("POST", MAPS, {"metadata": {"name": "a"}})
    assert (code, body["reason"]) == (500, "InternalError")
    assert 'failed calling webhook "check.example.org"' in body["message"]
    await wire.send("DELETE", f"{HOOKS}/v")
    await wire.send("POST", HOOKS, configuration("https://127.0.0.1:1/", ca, "Ignore"))
    assert (await wire.send("POST", MAPS, {"metadata": {"name": "a"}}))[0] == 201


async def test_versions_of_one_custom_resource_share_objects(wire: Wire) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [
        {"name": name, "served": True, "storage": name == "v1", "schema": schema} for name in ("v1", "v1beta1")
    ]
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "x.example.org", "scope": "Cluster", "names": names, "versions": versions}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await wire.send("POST", path, {"metadata": {"name": "things.x.example.org"}, "spec": spec}))[0] == 201
    body = {"metadata": {"name": "t"}, "word": "w"}
    code, made = await wire.send("POST", "/apis/x.example.org/v1beta1/things", body)
    assert (code, made["apiVersion"]) == (201, "x.example.org/v1beta1")
    code, shown = await wire.send("GET", "/apis/x.example.org/v1/things/t")
    assert (code, shown["apiVersion"], shown["word"]) == (200, "x.example.org/v1", "w")
    _, group = await wire.send("GET", "/apis/x.example.org")
    assert group["preferredVersion"]["version"] == "v1"


async def test_protobuf_over_the_wire(wire: Wire) -> None:
    def part(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    raw = b"k8s\x00" + part(1, part(1, b"v1") + part(2, b"ConfigMap"))
    raw += part(2, part(1, part(1, b"proto")) + part(2, part(1, b"k") + part(2, b"v")))
    async with wire.session.post(
        wire.url + MAPS, data=raw, headers={"Content-Type": "application/vnd.kubernetes.protobuf"}
    ) as response:
        made = await response.json()
    assert (response.status, made["data"]) == (201, {"k": "v"})
