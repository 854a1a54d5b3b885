"""The stand-in with a database: entities through the Admin API, as Kong with Postgres answers.

No recording of a real Kong with a database exists here; the bodies follow ``kong/db/errors.lua`` and
``kong/api/endpoints.lua`` of Kong 3.9.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from konverge.lab.kong.command import main as run_command
from konverge.lab.kong.database.locating import locate_database
from konverge.lab.kong.listen import Listen
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings, Timing
from konverge.lab.pod import PodEnvironment

HOST = "127.0.0.1"
DEADLINE = 30.0


class Nodes:
    """Nodes that share one database; a node polls and rebuilds every ``frequency`` seconds."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._file = directory / "kong.sqlite"
        self._stack = stack

    async def start(self, frequency: float = 0.02) -> Node:
        settings = Settings(
            admin=[Listen(HOST, 0)],
            proxy=[Listen(HOST, 0)],
            status=[Listen(HOST, 0)],
            timing=Timing.instant(),
            database="postgres",
            database_file=self._file,
            db_update_frequency=frequency,
            worker_state_update_frequency=frequency,
        )
        node = StandInKong(settings)
        await node.start()
        self._stack.push_async_callback(node.stop)
        client = await self._stack.enter_async_context(httpx.AsyncClient(timeout=DEADLINE))
        return Node(node, client)


class Node:
    def __init__(self, node: StandInKong, client: httpx.AsyncClient) -> None:
        self.node = node
        self._client = client

    async def ask(self, method: str, path: str, body: Any = None, role: str = "admin", **options: Any) -> Any:
        url = f"http://{HOST}:{self.node.port(role)}{path}"
        return await self._client.request(method, url, json=body, **options)

    async def make(self, path: str, body: Any) -> dict[str, Any]:
        answer = await self.ask("POST", path, body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def see(self, path: str, wanted: Callable[[httpx.Response], bool]) -> httpx.Response:
        """Ask the proxy until it answers as wanted; nothing announces that it does."""
        async with asyncio.timeout(DEADLINE):
            while True:
                answer: httpx.Response = await self.ask("GET", path, role="proxy")
                if wanted(answer):
                    return answer
                await asyncio.sleep(0.02)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with AsyncExitStack() as stack:
        yield Nodes(tmp_path, stack)


@pytest.fixture
async def node(nodes: Nodes) -> Node:
    return await nodes.start()


async def test_created_entities_are_filled_in_and_read_back(node: Node) -> None:
    service = await node.make("/services", {"name": "s", "url": "http://example.com:81/x", "tags": ["t"]})
    assert (service["host"], service["port"], service["path"], service["retries"]) == ("example.com", 81, "/x", 5)
    assert service["connect_timeout"] == 60000
    route = await node.make("/services/s/routes", {"name": "r", "paths": ["/r"]})
    assert route["service"] == {"id": service["id"]}
    for path in ("/routes/r", f"/routes/{route['id']}", "/services/s/routes/r"):
        assert (await node.ask("GET", path)).json() == route
    assert (await node.ask("GET", "/routes/r/service")).json() == service


async def test_put_creates_and_replaces(node: Node) -> None:
    identifier = str(uuid4())
    first = await node.ask("PUT", f"/services/{identifier}", {"host": "a", "retries": 1, "name": "s"})
    assert (first.status_code, first.json()["id"]) == (200, identifier)
    second = (await node.ask("PUT", f"/services/{identifier}", {"host": "b"})).json()
    assert (second["host"], second["retries"], second["name"]) == ("b", 5, None)
    named = (await node.ask("PUT", "/consumers/alice", {"custom_id": "1"})).json()
    assert named["username"] == "alice"
    again = (await node.ask("PUT", "/consumers/alice", {"custom_id": "2"})).json()
    assert (again["id"], again["custom_id"], again["created_at"]) == (named["id"], "2", named["created_at"])


async def test_patch_merges_records_and_nulls_take_away(node: Node) -> None:
    plugin = await node.make("/plugins", {"name": "key-auth", "config": {"key_names": ["k"], "realm": "here"}})
    answer = await node.ask("PATCH", f"/plugins/{plugin['id']}", {"config": {"realm": None}, "enabled": False})
    changed = answer.json()
    assert (changed["config"]["key_names"], changed["config"]["realm"], changed["enabled"]) == (["k"], None, False)
    service = await node.make("/services", {"host": "a", "path": "/p"})
    assert (await node.ask("PATCH", f"/services/{service['id']}", {"path": None})).json()["path"] is None
    missing = await node.ask("PATCH", f"/services/{uuid4()}", {"host": "b"})
    assert (missing.status_code, missing.json()["code"], missing.json()["name"]) == (404, 6, "not found")


async def test_schema_violations(node: Node) -> None:
    answer = await node.ask("POST", "/routes", {"protocols": ["http"]})
    assert (answer.status_code, answer.json()["code"]) == (400, 2)
    assert answer.json()["name"] == "schema violation"
    answer = await node.ask("POST", "/services", {"host": "a", "port": 99999, "nope": 1})
    assert answer.json()["fields"] == {"port": "value should be between 0 and 65535", "nope": "unknown field"}
    assert answer.json()["message"].startswith("2 schema violations (")
    bad = await node.ask("POST", "/services", None, content=b"{", headers={"Content-Type": "application/json"})
    assert (bad.status_code, bad.json()) == (400, {"message": "Cannot parse JSON body"})


async def test_unique_violations(node: Node) -> None:
    service = await node.make("/services", {"name": "s", "host": "a"})
    answer = await node.ask("POST", "/services", {"name": "s", "host": "b"})
    assert answer.status_code == 409
    assert answer.json() == {
        "code": 5,
        "name": "unique constraint violation",
        "fields": {"name": "s"},
        "message": "UNIQUE violation detected on '{name=\"s\"}'",
    }
    taken = await node.ask("POST", "/services", {"id": service["id"], "host": "b"})
    assert (taken.status_code, taken.json()["code"]) == (400, 3)
    await node.make("/plugins", {"name": "key-auth", "service": {"id": service["id"]}})
    twice = await node.ask("POST", "/services/s/plugins", {"name": "key-auth"})
    assert (twice.status_code, twice.json()["code"]) == (409, 5)
    for _ in range(2):
        await node.make("/services", {"host": "nameless"})
    other = await node.ask("PUT", f"/services/{uuid4()}", {"name": "s", "host": "c"})
    assert other.status_code == 409


async def test_references_must_lead_somewhere_and_hold_what_they_lead_to(node: Node) -> None:
    ghost = str(uuid4())
    answer = await node.ask("POST", "/routes", {"paths": ["/x"], "service": {"id": ghost}})
    assert (answer.status_code, answer.json()["code"], answer.json()["name"]) == (400, 4, "foreign key violation")
    assert answer.json()["fields"] == {"service": {"id": ghost}}
    service = await node.make("/services", {"name": "s", "host": "a"})
    await node.make("/services/s/routes", {"name": "r", "paths": ["/r"]})
    held = await node.ask("DELETE", f"/services/{service['id']}")
    assert (held.status_code, held.json()["message"]) == (
        400,
        "an existing 'routes' entity references this 'services' entity",
    )
    assert (await node.ask("POST", "/services/nope/routes", {"paths": ["/x"]})).status_code == 404


async def test_deletions_take_along_what_belongs_to_the_entity(node: Node) -> None:
    await node.make("/upstreams", {"name": "u"})
    await node.make("/upstreams/u/targets", {"target": "127.0.0.1:1"})
    await node.make("/consumers", {"username": "alice"})
    key = await node.make("/consumers/alice/key-auth", {"key": "secret"})
    await node.make("/consumers/alice/plugins", {"name": "rate-limiting", "config": {"minute": 5}})
    assert (await node.ask("GET", f"/key-auths/{key['id']}")).status_code == 200
    for path in ("/upstreams/u", "/consumers/alice", "/consumers/alice"):
        assert (await node.ask("DELETE", path)).status_code == 204
    for path in ("/key-auths", "/plugins", "/consumers", "/upstreams", "/targets"):
        assert (await node.ask("GET", path)).json() == {"data": [], "next": None}, path


async def test_passwords_are_hashed_once(node: Node) -> None:
    consumer = await node.make("/consumers", {"username": "alice"})
    made = await node.make("/consumers/alice/basic-auth", {"username": "a", "password": "p"})
    hashed = hashlib.sha1(f"p{consumer['id']}".encode()).hexdigest()
    assert made["password"] == hashed
    patched = await node.ask("PATCH", f"/consumers/alice/basic-auth/{made['id']}", {"tags": ["t"]})
    assert (patched.json()["password"], patched.json()["tags"]) == (hashed, ["t"])


async def test_pages_and_tags(node: Node) -> None:
    names = [f"c{number}" for number in range(7)]
    for number, name in enumerate(names):
        await node.make("/consumers", {"username": name, **({"tags": ["odd", name]} if number % 2 else {})})
    seen: list[str] = []
    path = "/consumers?size=3"
    while path:
        page = (await node.ask("GET", path)).json()
        assert len(page["data"]) <= 3
        seen += [entity["username"] for entity in page["data"]]
        path = page["next"]
    assert sorted(seen) == names
    odd = (await node.ask("GET", "/consumers?tags=odd")).json()["data"]
    assert sorted(entity["username"] for entity in odd) == ["c1", "c3", "c5"]
    both = (await node.ask("GET", "/consumers?tags=odd,c3")).json()["data"]
    assert [entity["username"] for entity in both] == ["c3"]


async def test_there_is_no_declarative_configuration(node: Node) -> None:
    for method in ("POST", "GET"):
        answer = await node.ask(method, "/config", {"_format_version": "3.0"} if method == "POST" else None)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("this endpoint is only available when Kong is configured to not")
    status = (await node.ask("GET", "/status")).json()
    assert status["database"] == {"reachable": True}
    assert "configuration_hash" not in status
    assert (await node.ask("GET", "/status/ready", role="status")).status_code == 200
    shown = (await node.ask("GET", "/")).json()["configuration"]
    assert (shown["database"], shown["db_update_frequency"]) == ("postgres", 0.02)


async def test_all_nodes_see_and_route_what_one_writes(nodes: Nodes) -> None:
    first, second = await nodes.start(), await nodes.start()
    route = await first.make("/routes", {"name": "r", "paths": ["/r"]})
    body = {"name": "request-termination", "config": {"status_code": 200, "body": "here"}}
    await second.make(f"/routes/{route['id']}/plugins", body)
    for node in (first, second):
        assert (await node.see("/r", lambda answer: answer.status_code == 200)).text == "here"
    await second.ask("DELETE", "/routes/r")
    for node in (first, second):
        await node.see("/r", lambda answer: answer.status_code == 404)
    third = await nodes.start()
    assert (await third.ask("GET", "/routes")).json()["data"] == []


async def test_routers_follow_on_their_timer_only(nodes: Nodes) -> None:
    slow = await nodes.start(frequency=3600)
    await slow.make("/routes", {"name": "r", "paths": ["/r"]})
    assert (await slow.ask("GET", "/routes/r")).status_code == 200
    assert (await slow.ask("GET", "/r", role="proxy")).status_code == 404


async def test_writers_on_several_nodes_never_break_a_constraint(nodes: Nodes) -> None:
    first, second = await nodes.start(), await nodes.start()

    async def race(node: Node, number: int) -> int:
        answer = await node.ask("POST", "/services", {"name": f"s{number}", "host": "a"})
        return int(answer.status_code)

    codes = await asyncio.gather(*(race(node, n) for n in range(10) for node in (first, second)))
    assert sorted(codes) == [201] * 10 + [409] * 10
    assert len((await first.ask("GET", "/services")).json()["data"]) == 10


async def test_injected_faults(node: Node) -> None:
    node.node.faults.write_500 = 1
    assert (await node.ask("POST", "/services", {"name": "s", "host": "a"})).status_code == 500
    node.node.faults.write_stored_500 = 1
    assert (await node.ask("POST", "/services", {"name": "s", "host": "a"})).status_code == 500
    assert (await node.ask("GET", "/services/s")).status_code == 200


def test_migrations_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for step in ("bootstrap", "up", "finish", "list"):
        assert run_command(["migrations", step], {}) == 0
    assert "already bootstrapped" in capsys.readouterr().out


def test_where_the_database_is(tmp_path: Path) -> None:
    volume = tmp_path / "pods" / "uid" / "volumes" / "prefix"
    pod = PodEnvironment(ip="127.20.64.2", mounts={"/kong_prefix/": str(volume), "/data": str(tmp_path / "host")})
    named = {"KONG_PG_HOST": "postgres", "KONG_PG_DATABASE": "kong"}
    assert locate_database(named, pod) == tmp_path / "databases" / "postgres-5432-kong.sqlite"
    assert locate_database({"KONG_PG_DATABASE": "/data/x"}, pod) == tmp_path / "host" / "x"
    given = {**named, "KONVERGE_LAB_KONG_DATABASES": str(tmp_path)}
    assert locate_database(given, PodEnvironment()) == tmp_path / "postgres-5432-kong.sqlite"
