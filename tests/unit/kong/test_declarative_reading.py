"""A running gateway (the lab's stand-in) against the document that it was given."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from konverge.cli.main import app
from konverge.errors import NotFound
from konverge.kong.admin import AdminClient
from konverge.kong.declarative import compare, read_entities, serialise
from konverge.kong.declarative.reading import read_schema
from konverge.kong.marker import add_marker
from konverge.kong.outcomes import Stored
from konverge.lab.kong.listen import Listen
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings, Timing
from konverge.translate import render

sys.path.append(str(Path(__file__).parents[1] / "translate"))

from made_certificates import AUTHORITY, PAIRS
from made_objects import (
    CLASS,
    consumer,
    credential,
    http_route,
    ingress,
    konghq,
    make,
    match,
    path,
    plugin,
    ref,
    secret,
    service,
    slice_of,
)

HOST = "127.0.0.1"
RATE = {"minute": 5, "policy": "local"}


def cluster() -> list[dict[str, Any]]:
    """Return objects of most kinds that a gateway without enterprise features can load."""
    certificate, key = PAIRS[0]
    policy = {
        "algorithm": "consistent-hashing",
        "hashOn": {"header": "h"},
        "healthchecks": {"active": {"type": "tcp"}},
    }
    uid = "7b3c1f1e-0000-4000-8000-000000000001"
    values = [
        service(annotations=konghq(plugins="plug", upstream_policy="pol", read_timeout="5000")),
        service("other"),
        slice_of("svc", "10.0.0.1", "10.0.0.2"),
        ingress(host="h.example.com", annotations=konghq(plugins="cors", strip_path="true", tags="b,a")),
        ingress("tls", path(svc="other"), spec={"tls": [{"hosts": ["t.example.com"], "secretName": "tls"}]}),
        secret("tls", values={"tls.crt": certificate, "tls.key": key}, uid=uid),
        secret("ca", values={"id": uid, "cert": AUTHORITY}, labels={"konghq.com/ca-cert": "true"}),
        plugin("plug", plugin="rate-limiting", config=RATE),
        plugin("cors", plugin="cors", config={"origins": ["https://a.example.com"]}, instance_name="mine"),
        make("KongUpstreamPolicy", "pol", spec=policy),
        consumer("bob", credentials=["key", "basic", "jwt", "acl"]),
        credential("key", "key-auth", key="hush-key"),
        credential("basic", "basic-auth", username="bob", password="hush-password"),
        credential("jwt", "jwt", key="issuer"),
        credential("acl", "acl", group="gold"),
        http_route("r", {"backendRefs": [ref("other", weight=3)], "matches": [match("/r", method="GET")]}),
    ]
    rule = {"port": 9000, "backend": {"serviceName": "other", "servicePort": 80}}
    return [*values, make("TCPIngress", "tcp", annotations=CLASS, spec={"rules": [rule]})]


@pytest.fixture
async def node() -> AsyncIterator[StandInKong]:
    listen = [Listen(HOST, 0)]
    gateway = StandInKong(Settings(admin=listen, proxy=listen, status=listen, timing=Timing.instant()))
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def admin_of(node: StandInKong) -> AdminClient:
    return AdminClient(f"http://{HOST}:{node.port('admin', tls=False)}")


async def load(node: StandInKong, document: dict[str, Any]) -> None:
    async with admin_of(node) as admin:
        outcome = await admin.push(serialise(document))
    assert isinstance(outcome, Stored), outcome


async def test_the_loaded_configuration_equals_the_rendered_one(node: StandInKong) -> None:
    rendered = render(cluster())
    await load(node, rendered.document)
    async with admin_of(node) as admin:
        loaded = await read_entities(admin)
        assert (await admin.status()).hash == rendered.hash
    assert [str(item) for item in compare(loaded, rendered.document)] == []
    assert {"plugins/rate-limiting", "routes"} <= loaded.schemas.keys()


async def test_every_edit_of_the_cluster_shows_up(node: StandInKong) -> None:
    await load(node, render(cluster()).document)
    changed = cluster()
    changed[0]["metadata"]["annotations"]["konghq.com/read-timeout"] = "6000"
    changed[7]["config"] = {**RATE, "hour": 7}
    changed[11] = credential("key", "key-auth", key="hush-other")
    changed[12] = credential("basic", "basic-auth", username="bob", password="hush-other")
    async with admin_of(node) as admin:
        found = compare(await read_entities(admin), render(changed).document)
    lines = [str(item) for item in found]
    assert {(item.kind, item.change, item.field) for item in found} == {
        ("services", "changed", "read_timeout"),
        ("plugins", "changed", "config.hour"),
        ("keyauth_credentials", "only-left", ""),
        ("keyauth_credentials", "only-right", ""),
        ("basicauth_credentials", "changed", "password"),
    }
    assert "hush" not in "\n".join(lines)


async def test_schemas_that_a_gateway_does_not_have(node: StandInKong) -> None:
    async with admin_of(node) as admin:
        with pytest.raises(NotFound):
            await read_schema(admin, "plugins/nonsense")


async def test_the_command_compares_files_and_proxies(node: StandInKong, tmp_path: Path) -> None:
    rendered = render(cluster())
    url = f"proxy:http://{HOST}:{node.port('admin', tls=False)}"
    marked = add_marker(rendered.document, fleet="f", revision="0" * 32, token="token-token", flavor="traditional")
    await load(node, marked)
    manifests, document = tmp_path / "manifests.yaml", tmp_path / "document.json"
    manifests.write_bytes(b"\n---\n".join(orjson.dumps(value) for value in cluster()))
    document.write_bytes(rendered.content)
    for other in (manifests, document):
        result = await asyncio.to_thread(CliRunner().invoke, app, ["diff", str(other), url])
        assert result.exit_code == 0, result.output
        assert result.stdout == "no difference\n"
    edited = orjson.loads(rendered.content)
    edited["services"][0]["retries"] = 9
    document.write_bytes(serialise(edited))
    result = await asyncio.to_thread(CliRunner().invoke, app, ["diff", url, str(document)])
    assert result.exit_code == 2
    assert "    retries: 5 -> 9\n" in result.stdout
    result = await asyncio.to_thread(CliRunner().invoke, app, ["diff", url, str(document), "-o", "json"])
    assert result.exit_code == 2
    (difference,) = orjson.loads(result.stdout)["differences"]
    assert (difference["field"], difference["left"], difference["right"]) == ("retries", "5", "9")
