"""Replay every recorded exchange against the stand-in and compare what comes back.

Not replayable, because they hold the summary of a run and no single exchange:

====================================  =================================================================
e_two_posts_*, e_four_posts_5000      timing of concurrent posts; the rules are in tests/unit/lab/kong
i_reload_inflight, i_reload_wrk       load over reloads; the rules are in tests/unit/lab/kong
j_scale                               cost of loading; the figures are the defaults of ``Timing``
k_lifecycle, l_misc                   timelines; the rules are in tests/unit/lab/kong
m_upstream_health_first_load          a timeline of health
h_server_*                            the client refuses: nothing of the server is in the answer
====================================  =================================================================

The configuration behind f and g was not recorded; it is rebuilt from what f reads back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from kong_authorities import Authorities, make_authorities
from kong_recordings import RECORDED_BACKEND, compare_headers, load, make_body, mask, unfold

from konverge.lab.kong.listen import Listen
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings, Timing

HOST = "127.0.10.1"
SERVER_SIDE_SILENT = ("h_server_ca_not_trusted_by_client", "h_server_hostname_mismatch")
ZEROS = "0" * 32


class Backend:
    """The upstream of the recordings: it answers every request with what it got."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, uri, _ = head[0].split(" ")
                fields = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:]) if n}
                body = {"backend": f"{HOST}:{self.port}", "uri": uri, "method": method, "headers": fields}
                data = json.dumps(body).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    server = Backend()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    return make_authorities(tmp_path_factory.mktemp("certificates"), HOST)


@asynccontextmanager
async def running(authorities: Authorities, prefix: Path | None = None) -> AsyncIterator[StandInKong]:
    flags = ("reuseport", "backlog=16384")
    tls = ("http2", "ssl", *flags)
    node = StandInKong(
        Settings(
            admin=[Listen(HOST, 0, flags), Listen(HOST, 0, tls)],
            proxy=[Listen(HOST, 0, flags), Listen(HOST, 0, tls)],
            status=[Listen(HOST, 0, flags)],
            prefix=prefix,
            shown_prefix="/kong_prefix",
            admin_cert=authorities.path("server.crt"),
            admin_key=authorities.path("server.key"),
            client_ca=authorities.path("client-ca.crt"),
            verify_client="on",
            verify_depth=3,
            timing=Timing.instant(),
        )
    )
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


class Player:
    """Sends recorded requests and compares the answers."""

    def __init__(self, node: StandInKong, authorities: Authorities, backend: Backend | None = None) -> None:
        self.node = node
        self.authorities = authorities
        self.backend = f"{HOST}:{backend.port}" if backend is not None else RECORDED_BACKEND
        self.problems: list[str] = []

    def _url(self, exchange: dict[str, Any]) -> str:
        kind = exchange["listener"]
        role, tls = kind.removesuffix("_tls"), kind.endswith("_tls")
        if exchange["name"] == "g16_proxy_https":
            role, tls = "proxy", True
        return f"{'https' if tls else 'http'}://{HOST}:{self.node.port(role, tls=tls)}{exchange['path']}"

    def _tls(self, exchange: dict[str, Any]) -> ssl.SSLContext | bool:
        options = exchange.get("curl") or []
        if not exchange["listener"].endswith("_tls") and exchange["name"] != "g16_proxy_https":
            # Plain HTTP; False spares loading the system's CAs for every request.
            return False
        if "-k" in options:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        context = ssl.create_default_context(cafile=str(self.authorities.path("server-ca.crt")))
        if "--cert" in options:
            name = Path(options[options.index("--cert") + 1]).stem
            context.load_cert_chain(self.authorities.path(f"{name}.crt"), self.authorities.path(f"{name}.key"))
        version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
        if "--tls-max" in options:
            wanted = version[options[options.index("--tls-max") + 1]]
            context.minimum_version = context.maximum_version = wanted
        return context

    async def send(self, exchange: dict[str, Any]) -> httpx.Response:
        headers = {name: value for name, value in exchange["headers"].items() if value is not None}
        body = make_body(exchange)
        if body is not None:
            body = body.replace(RECORDED_BACKEND.encode(), self.backend.encode())
        files = None
        options = exchange.get("curl") or []
        if "-F" in options:
            kind = options[options.index("-F") + 1].rpartition(".")[2]
            files = {"config": (f"config.{kind}", TEXTS[kind].encode())}
        verify = self._tls(exchange)
        async with httpx.AsyncClient(verify=verify, http2=verify is not False, timeout=30) as client:
            content: Any = body
            if headers.pop("Transfer-Encoding", None):
                content = _pieces(body or b"")
            request = client.build_request(
                exchange["method"], self._url(exchange), headers=headers, content=content, files=files
            )
            request.headers["user-agent"] = "curl/7.88.1"
            request.headers.pop("accept-encoding", None)
            return await client.send(request)

    async def play(self, exchange: dict[str, Any], *, hashes: bool = True) -> None:
        await self._restore(exchange)
        response = await self.send(exchange)
        found: list[str] = []
        if response.status_code != exchange["status"]:
            found.append(f"status {response.status_code} instead of {exchange['status']}: {response.text[:300]}")
        found += compare_headers(exchange["response_headers"], list(response.headers.multi_items()))
        found += self._compare_body(exchange, response)
        if hashes and "after" in exchange and exchange["path"].startswith("/config"):
            found += self._compare_hash(exchange)
        self.problems += [f"{exchange['name']}: {problem}" for problem in found]

    async def _restore(self, exchange: dict[str, Any]) -> None:
        """Load what the node had before, where an exchange in between was not recorded."""
        known = {hashlib.md5(text.encode()).hexdigest(): text for text in TEXTS.values()}
        before = exchange.get("before")
        if before in known and self.node.snapshot.hash != before and self.backend == RECORDED_BACKEND:
            await load_text(self.node, known[before])

    def _compare_hash(self, exchange: dict[str, Any]) -> list[str]:
        actual, body = self.node.snapshot.hash, make_body(exchange)
        after = exchange["after"]
        if exchange["status"] != 201 and exchange["before"] == after:
            return []
        text = {hashlib.md5(t.encode()).hexdigest() for t in TEXTS.values()} | {ZEROS}
        if body is not None:
            text.add(hashlib.md5(body).hexdigest())
        if after in text:
            return [] if actual == after else [f"hash {actual} instead of {after}"]
        return [f"hash {actual} is one of a text"] if actual in text else []

    def _compare_body(self, exchange: dict[str, Any], response: httpx.Response) -> list[str]:
        expected = (exchange["response_body"] or "").replace(RECORDED_BACKEND, self.backend)
        if exchange["method"] == "HEAD":
            return [] if not response.content else ["a body in the answer to HEAD"]
        if expected.startswith("# HELP"):
            return compare_metrics(expected, response.text)
        try:
            wanted = unfold(json.loads(expected))
        except ValueError:
            same = expected == response.text
            return [] if same else [f"body {response.text[:300]!r} instead of {expected[:300]!r}"]
        try:
            actual = response.json()
        except ValueError:
            return [f"body {response.text[:200]!r} is no JSON"]
        host, _, port = self.backend.partition(":")
        left, right = mask(self._adapt(readdress(wanted, host, int(port)))), mask(self._adapt(actual))
        return [] if left == right else list(differences(left, right, ""))[:8]

    def _adapt(self, value: Any) -> Any:
        """Mask what depends on the addresses and counters of this run."""
        if isinstance(value, dict) and "server" in value and "configuration_hash" in value:
            return value | {"server": sorted(value["server"]), "configuration_hash": len(value["configuration_hash"])}
        if isinstance(value, dict) and "configuration" in value:
            text = re.sub(r"127\.0\.10\.1:\d+", "address", json.dumps(value["configuration"]))
            shown = re.sub(r'"port": \d+', '"port": 0', text)
            shown = shown.replace(str(self.authorities.directory), "/certs")
            configuration = json.loads(shown)
            for name in ("nginx_admin_directives", "nginx_main_directives"):
                configuration.pop(name, None)
            return value | {"configuration": configuration}
        if isinstance(value, dict) and "backend" in value:
            headers = value["headers"] | {"x-forwarded-port": 0, "x-kong-request-id": 0}
            if "x-credential-identifier" in headers:
                headers["x-credential-identifier"] = "id"
            return value | {"headers": headers}
        return value


TEXTS = {
    "json": (
        '{"_format_version": "3.0", "services": [{"name": "s1", "url": "http://127.0.11.1:9000", '
        '"routes": [{"name": "r1", "paths": ["/r1"]}]}]}'
    ),
    "yaml": (
        "_format_version: '3.0'\nservices:\n- name: s1\n  url: http://127.0.11.1:9000\n  routes:\n"
        "  - name: r1\n    paths:\n    - /r1\n"
    ),
}


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


def differences(left: Any, right: Any, path: str) -> AsyncIterator[str] | Any:
    """Yield where two masked values differ."""
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys(), key=str):
            if key not in left:
                yield f"{path}.{key} is extra: {str(right[key])[:80]}"
            elif key not in right:
                yield f"{path}.{key} is missing: {str(left[key])[:80]}"
            else:
                yield from differences(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for at, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from differences(one, other, f"{path}[{at}]")
    elif left != right:
        yield f"{path}: expected {str(left)[:300]}, got {str(right)[:300]}"


EXACT = re.compile(
    r"^kong_(http_requests_total|datastore_reachable|node_info|upstream_target_health|memory_lua_shared_dict_total_bytes"
    r"|\w+_latency_ms_count|\w+_latency_ms_bucket\{.*\+Inf)"
)


def compare_metrics(expected: str, actual: str) -> list[str]:
    """Compare the series, and the values of those that depend on the requests alone."""

    def parse(text: str) -> dict[str, str]:
        found = {}
        for line in text.splitlines():
            if "_bucket{" in line and not re.search(r'le="(1|25|\+Inf)"', line):
                continue
            line = re.sub(r'node_id="[^"]*"', 'node_id="n"', line)
            line = re.sub(r'pid="\d+"', 'pid="p"', line)
            if line.startswith("#"):
                found[line] = ""
            else:
                series, _, value = line.rpartition(" ")
                found[series] = value if EXACT.match(series) else ""
        return found

    return list(differences(parse(expected), parse(actual), ""))


def check(player: Player) -> None:
    assert not player.problems, "\n" + "\n".join(player.problems)


async def test_groups_a_to_e(authorities: Authorities) -> None:
    """Reads before any configuration, forms of POST /config, errors, sizes: on one node, in order."""
    async with running(authorities) as node:
        player = Player(node, authorities)
        for group in "abcde":
            for exchange in load(group):
                await player.play(exchange)
        check(player)


def recorded_configuration(backend: str) -> dict[str, Any]:
    """Return a configuration that reads back as group f shows it."""
    url = f"http://{backend}"
    flags = ("per_consumer", "status_code_metrics", "latency_metrics", "bandwidth_metrics", "upstream_health_metrics")
    transformer = {
        "add": {"headers": ["x-added:1"], "querystring": ["q:2"]},
        "remove": {"headers": ["x-gone"]},
    }
    cors = {
        "origins": ["https://app.example.com"],
        "methods": ["GET", "POST"],
        "max_age": 600,
        "credentials": True,
    }
    services = [
        ("plain", [], {}),
        ("auth", [{"name": "key-auth"}], {}),
        ("rl", [{"name": "rate-limiting", "config": {"minute": 2, "policy": "local"}}], {}),
        ("cors", [{"name": "cors", "config": cors}], {}),
        ("rt", [{"name": "request-transformer", "config": transformer}], {}),
    ]
    configured = [
        {"name": name, "url": url, "plugins": plugins, "routes": [{"name": name, "paths": [f"/{name}"]}], **more}
        for name, plugins, more in services
    ]
    down = {"name": "down", "url": "http://127.0.11.9:9", "connect_timeout": 500, "retries": 1}
    slow = {"name": "slow", "url": url, "read_timeout": 1000, "retries": 0}
    ups = {"name": "ups", "host": "up1", "port": 80}
    configured += [
        down | {"routes": [{"name": "down", "paths": ["/down"]}]},
        slow | {"routes": [{"name": "slow", "paths": ["/slow1s"]}]},
        ups | {"routes": [{"name": "ups", "paths": ["/ups"], "hosts": ["ups.example.com"]}]},
    ]
    active = {
        "type": "http",
        "http_path": "/fast",
        "healthy": {"interval": 1, "successes": 1},
        "unhealthy": {"interval": 1, "http_failures": 1, "tcp_failures": 1},
    }
    targets = [{"target": backend}, {"target": "127.0.11.9:9", "weight": 10}]
    return {
        "_format_version": "3.0",
        "services": configured,
        "upstreams": [{"name": "up1", "healthchecks": {"active": active | {"timeout": 1}}, "targets": targets}],
        "consumers": [{"username": "alice", "keyauth_credentials": [{"key": "alice-key"}]}],
        "plugins": [{"name": "prometheus", "config": dict.fromkeys(flags, True)}],
    }


def readdress(value: Any, host: str, port: int) -> Any:
    """Put the backend of this run where the recorded one was."""
    if isinstance(value, list):
        return [readdress(item, host, port) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: readdress(item, host, port) for key, item in value.items()}
    if changed.get("port") == 9000:
        changed["port"] = port
        changed |= {name: host for name in ("host", "ip") if name in changed}
    return changed


async def load_configuration(node: StandInKong, configuration: dict[str, Any]) -> None:
    await load_text(node, json.dumps(configuration))


async def load_text(node: StandInKong, text: str) -> None:
    async with httpx.AsyncClient(verify=False) as client:
        response = await client.post(
            f"http://{HOST}:{node.port('admin')}/config",
            content=text,
            headers={"Content-Type": "text/yaml"},
        )
        assert response.status_code == 201, response.text


async def test_groups_f_and_g(authorities: Authorities, backend: Backend) -> None:
    """Reading back a configuration with plugins, and requests through them."""
    async with running(authorities) as node:
        address = f"{HOST}:{backend.port}"
        await load_configuration(node, recorded_configuration(address))
        async with asyncio.timeout(10):
            while all(target.healthy for target in node.gateway.balancers["up1"].targets):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        player = Player(node, authorities, backend)
        for exchange in load("f") + load("g"):
            _drop_second_target(exchange)
            await player.play(exchange)
        check(player)


def _drop_second_target(exchange: dict[str, Any]) -> None:
    """The recorded upstream had two backends; this one has one."""
    if exchange["name"] == "f10_upstream_health":
        body = json.loads(exchange["response_body"])
        body["data"] = [row for row in body["data"] if row["target"] != "127.0.11.1:9001"]
        exchange["response_body"] = json.dumps(body)
    elif exchange["name"].startswith("g2"):
        lines = exchange["response_body"].splitlines()
        exchange["response_body"] = "\n".join(line for line in lines if "127.0.11.1:9001" not in line)


async def test_group_h(authorities: Authorities) -> None:
    """Client certificates on the Admin listener, TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2."""
    async with running(authorities) as node:
        player = Player(node, authorities)
        for exchange in load("h"):
            if exchange["name"] not in SERVER_SIDE_SILENT:
                await player.play(exchange, hashes=False)
        check(player)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("client", "text"),
    [("", "No required SSL certificate was sent"), ("client-wrongca", "The SSL certificate error")],
)
async def test_raw_client(authorities: Authorities, version: ssl.TLSVersion, client: str, text: str) -> None:
    """The h_s_client recordings: HTTP/1.1 without ALPN, then the connection ends."""
    async with running(authorities) as node:
        context = ssl.create_default_context(cafile=str(authorities.path("server-ca.crt")))
        context.minimum_version = context.maximum_version = version
        if client:
            context.load_cert_chain(authorities.path(f"{client}.crt"), authorities.path(f"{client}.key"))
        reader, writer = await asyncio.open_connection(HOST, node.port("admin", tls=True), ssl=context)
        writer.write(b"GET /status HTTP/1.1\r\nHost: kong-admin\r\n\r\n")
        answer = (await reader.read()).decode()
        writer.close()
        head, _, body = answer.partition("\r\n\r\n")
        lines = head.split("\r\n")
        assert lines[0] == "HTTP/1.1 400 Bad Request"
        names = [line.partition(":")[0] for line in lines[1:]]
        assert names == ["Date", "Content-Type", "Content-Length", "Connection"]
        assert lines[-1] == "Connection: close"
        assert body == (
            f"<html>\r\n<head><title>400 {text}</title></head>\r\n<body>\r\n"
            "<center><h1>400 Bad Request</h1></center>\r\n"
            f"<center>{text}</center>\r\n</body>\r\n</html>\r\n"
        )


async def test_groups_i_to_m(authorities: Authorities, backend: Backend, tmp_path: Path) -> None:
    """The single exchanges around lifecycles: loading, draining, proxying while draining."""
    async with running(authorities, tmp_path) as node:
        player = Player(node, authorities, backend)
        for group in "iklm":
            for exchange in load(group):
                await player.play(exchange, hashes=False)
        check(player)
