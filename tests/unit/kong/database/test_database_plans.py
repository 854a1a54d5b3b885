"""Plans and what becomes of them: order, ownership, refusals, lost answers, secrets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from database_documents import make_certificate
from kong_in_memory import TAG, KongInMemory, carry_out

from konverge.errors import Invalid
from konverge.kong.database import (
    Action,
    Journal,
    apply,
    applying,
    mark_document,
    owner_tag,
    plan,
    read_passwords,
    undo,
    validate,
)
from konverge.kong.database.closing import CLOSED_HOST
from konverge.kong.database.kinds import KINDS, locate_collection, locate_entity
from konverge.kong.marker import ROUTE_NAME, add_marker
from konverge.model.condition import ObjectRef

INGRESS = ["k8s-kind:Ingress", "k8s-name:web", "k8s-namespace:shop"]
TOKEN = "0123456789"


@pytest.fixture
def kong(monkeypatch: pytest.MonkeyPatch) -> Iterator[KongInMemory]:
    monkeypatch.setattr(applying, "PAUSE", 0.0001)
    kong = KongInMemory()
    yield kong
    kong.close()


def keep_order(_: list[Any]) -> None:
    """Leave the operations of a stage as they are."""


def build(upstream: str = "up", **more: Any) -> dict[str, Any]:
    """One upstream with a target, one service, one route with a plugin of its own."""
    route = {"name": "r", "paths": ["/r"], "tags": INGRESS, "plugins": [{"name": "key-auth"}], **more}
    return {
        "_format_version": "3.0",
        "upstreams": [{"name": upstream, "targets": [{"target": "127.0.0.1:1"}]}],
        "services": [{"name": f"s-{upstream}", "host": upstream, "routes": [route]}],
    }


async def settle(kong: KongInMemory, document: dict[str, Any], tag: str = TAG) -> None:
    await carry_out(kong, await plan(kong, document, tag), keep_order)


async def post(kong: KongInMemory, path: str, **body: Any) -> dict[str, Any]:
    reply = await kong.call("POST", path, body)
    assert reply.ok, reply.body
    return dict(reply.body)


def words(stages: Any) -> list[list[str]]:
    return [sorted(str(operation) for operation in stage) for stage in stages]


async def test_new_things_are_made_before_what_uses_them_and_old_ones_go_last(kong: KongInMemory) -> None:
    first = await plan(kong, build("blue"), TAG)
    assert words(first.prepare) == [
        ["create upstream blue"],
        ["create target 127.0.0.1:1 of upstream blue"],
        ["create service s-blue"],
        ["create route r"],
        ["create plugin key-auth on route r"],
        ["open route r"],
    ]
    assert first.remove == ()
    await carry_out(kong, first, keep_order)
    second = await plan(kong, build("green"), TAG)
    assert words(second.prepare) == [
        ["create upstream green"],
        ["create target 127.0.0.1:1 of upstream green"],
        ["create service s-green"],
        ["update route r"],
    ]
    assert words(second.remove) == [["delete service s-blue"], ["delete upstream blue"]]
    assert [len(operation.takes) for operation in second.remove[-1]] == [1]


async def test_a_new_route_works_only_when_its_plugins_are_there(kong: KongInMemory) -> None:
    found = await plan(kong, build(), TAG)
    seen: list[Any] = []
    for stage in found.prepare:
        await apply(kong, [stage], Journal())
        routes = (await kong.call("GET", "/routes")).body["data"]
        plugins = (await kong.call("GET", "/plugins")).body["data"]
        seen += [(route["hosts"], len(plugins)) for route in routes]
    assert seen == [([CLOSED_HOST], 0), ([CLOSED_HOST], 1), (None, 1)]


async def test_a_route_that_was_left_closed_is_opened_after_its_plugins(kong: KongInMemory) -> None:
    found = await plan(kong, build(), TAG)
    await apply(kong, found.prepare[:4], Journal())
    again = await plan(kong, build(), TAG)
    assert words(again.prepare) == [["create plugin key-auth on route r"], ["open route r"]]


async def test_a_plugin_goes_when_what_comes_instead_is_there_and_before_the_marker(kong: KongInMemory) -> None:
    def mark(document: dict[str, Any], digest: str) -> dict[str, Any]:
        marked = add_marker(document, fleet="shop", revision=digest, token=TOKEN, flavor="traditional")
        return mark_document(marked, digest)

    await settle(kong, mark(build(), "a" * 32))
    found = await plan(kong, mark(build(plugins=[{"name": "basic-auth"}]), "b" * 32), TAG)
    assert words(found.prepare) == [
        ["create plugin basic-auth on route r"],
        ["delete plugin key-auth on route r"],
        [f"delete route {ROUTE_NAME}-{'a' * 12}"],
        [f"create route {ROUTE_NAME}-{'b' * 12}"],
        [f"create plugin request-termination on route {ROUTE_NAME}-{'b' * 12}"],
    ]
    assert found.stored_hash == "a" * 32


async def test_what_others_have_made_is_never_touched(kong: KongInMemory) -> None:
    service = await post(kong, "/services", name="theirs", host="a")
    await post(kong, "/services/theirs/routes", name="their-route", paths=["/t"])
    await post(kong, "/plugins", name="cors", tags=["somebody"])
    await settle(kong, build(), owner_tag("default", "another"))
    before = kong.dump()
    await settle(kong, {"services": [{"name": "mine", "host": "b"}]})
    await settle(kong, {})
    assert kong.dump() == before
    assert service["id"] in before["services"]


async def test_a_name_that_somebody_else_has_is_refused_and_tied_to_the_object(kong: KongInMemory) -> None:
    await post(kong, "/services", name="s-up", host="theirs")
    held = kong.dump()
    document = build()
    document["services"][0]["tags"] = INGRESS
    journal = Journal()
    applied = await apply(kong, (await plan(kong, document, TAG)).prepare, journal)
    (failure,) = applied.failed
    assert (failure.reason, failure.retryable) == ("NameTaken", False)
    assert "something that is not Konverge's has the same name" in failure.message
    assert failure.refusal is not None
    assert failure.refusal.objects == (ObjectRef(kind="Ingress", name="web", namespace="shop"),)
    undone = await undo(kong, journal)
    assert (len(undone.undone), undone.lost) == (2, ())
    assert kong.dump() == held


async def test_an_id_that_somebody_else_has_is_not_written_over(kong: KongInMemory) -> None:
    theirs = await post(kong, "/services", name="theirs", host="a")
    mine = {"services": [{"id": theirs["id"], "name": "mine", "host": "b"}]}
    applied = await apply(kong, (await plan(kong, mine, TAG)).prepare, Journal())
    assert [failure.reason for failure in applied.failed] == ["NameTaken"]
    assert (await kong.call("GET", f"/services/{theirs['id']}")).body["host"] == "a"


async def test_what_kong_would_refuse_is_found_before_anything_is_written(kong: KongInMemory) -> None:
    found = await plan(kong, build(paths=["no slash"]), TAG)
    failures = await validate(kong, found.prepare)
    assert {failure.operation.label for failure in failures} == {"route r"}
    assert all(failure.refusal and failure.refusal.objects for failure in failures)
    assert all("should start with: /" in failure.message for failure in failures)
    assert kong.writes == []


async def test_deletions_that_would_take_along_what_others_made_are_left_out(kong: KongInMemory) -> None:
    await settle(kong, build())
    await post(kong, "/routes/r/plugins", name="cors")
    await post(kong, "/upstreams/up/targets", target="127.0.0.1:9")
    found = await plan(kong, {}, TAG)
    assert sorted((operation.label, reason) for operation, reason in found.kept) == [
        ("route r", "has what is not Konverge's: plugin cors"),
        ("upstream up", "has what is not Konverge's: target 127.0.0.1:9"),
    ]
    journal = Journal()
    assert (await apply(kong, found.remove, journal)).ok
    # The route stays, so its service has to.
    assert [(kept.operation.label, kept.reason) for kept in journal.kept] == [("service s-up", "StillReferenced")]
    assert (await kong.call("GET", "/routes/r")).ok


async def test_unique_values_change_hands(kong: KongInMemory) -> None:
    def people(**ids: str) -> dict[str, Any]:
        return {"consumers": [{"username": name, "custom_id": value} for name, value in ids.items()]}

    await settle(kong, people(alice="1", bob="2"))
    found = await plan(kong, people(alice="2", bob="1"), TAG)
    assert words(found.prepare)[0] == ["set-aside consumer alice", "set-aside consumer bob"]
    held = kong.dump()
    journal = Journal()
    assert (await apply(kong, found.prepare, journal)).ok
    assert (await plan(kong, people(alice="2", bob="1"), TAG)).empty
    assert not (await undo(kong, journal)).lost
    assert kong.dump() == held


async def test_a_renewed_certificate_keeps_its_id_and_its_names(kong: KongInMemory) -> None:
    def certify(number: int) -> dict[str, Any]:
        cert, key = make_certificate(number)
        identifier = "5e5b3a52-5e4b-4b5f-8d0e-6f3f0f0f0f01"
        return {"certificates": [{"id": identifier, "cert": cert, "key": key, "snis": [{"name": "a.example.com"}]}]}

    await settle(kong, certify(0))
    found = await plan(kong, certify(1), TAG)
    assert [operation.action for operation in found.operations] == [Action.UPDATE]
    await carry_out(kong, found, keep_order)
    assert (await plan(kong, certify(1), TAG)).empty


@pytest.mark.parametrize("trouble", ["lost", "unheard"])
async def test_every_call_may_be_repeated(kong: KongInMemory, trouble: str) -> None:
    asked: set[tuple[str, str]] = set()

    def spoil(method: str, path: str) -> str:
        fresh = method != "GET" and (method, path) not in asked
        asked.add((method, path))
        return trouble if fresh else ""

    await settle(kong, build("old"))
    found = await plan(kong, build("new"), TAG)
    kong.spoil = spoil
    journal = Journal()
    assert (await apply(kong, [*found.prepare, *found.remove], journal)).ok
    assert not journal.kept
    kong.spoil = lambda method, path: ""
    assert (await plan(kong, build("new"), TAG)).empty


async def test_what_may_have_been_done_is_taken_back_too(kong: KongInMemory) -> None:
    await settle(kong, build("old"))
    held = kong.dump()
    found = await plan(kong, build("new"), TAG)
    kong.spoil = lambda method, path: "unheard" if (method, path) == ("POST", "/services") else ""
    journal = Journal()
    applied = await apply(kong, found.prepare, journal)
    # The first attempt made it, the repeats met what it had made and could not be heard either.
    assert [(failure.reason, failure.retryable) for failure in applied.failed] == [("Unavailable", True)]
    kong.spoil = lambda method, path: ""
    assert not (await undo(kong, journal)).lost
    assert kong.dump() == held


async def test_what_cannot_be_taken_back_is_told(kong: KongInMemory) -> None:
    await settle(kong, build("old"))
    found = await plan(kong, build("new"), TAG)
    journal = Journal()
    await apply(kong, found.prepare, journal)
    kong.spoil = lambda method, path: "lost" if method == "DELETE" and path.startswith("/services") else ""
    undone = await undo(kong, journal)
    assert ("service s-new", "Unavailable") in [(lost.operation.label, lost.reason) for lost in undone.lost]
    assert "update route r" in [str(operation) for operation in undone.undone]


def login(password: str, *tags: str) -> dict[str, Any]:
    credential = {"username": "a", "password": password, "tags": list(tags)}
    return {"consumers": [{"username": "alice", "basicauth_credentials": [credential]}]}


async def test_a_password_comes_back_from_the_configuration_before_or_not_at_all(kong: KongInMemory) -> None:
    await settle(kong, login("first-password"))
    consumer = next(iter(kong.dump()["consumers"]))
    hashed = hashlib.sha1(f"first-password{consumer}".encode()).hexdigest()
    for known, lost in (({}, ["PasswordLost"]), (read_passwords(login("first-password")), [])):
        await settle(kong, login("first-password"))
        for document in (login("second-password"), {}):
            found = await plan(kong, document, TAG)
            journal = Journal()
            assert (await apply(kong, [*found.prepare, *found.remove], journal)).ok
            undone = await undo(kong, journal, known)
            assert [failure.reason for failure in undone.lost] == lost, document
            held = {e["password"] for e in kong.dump().get("basicauth_credentials", {}).values()}
            if known:
                assert held == {hashed}


async def test_a_password_is_left_alone_where_something_else_changes(kong: KongInMemory) -> None:
    await settle(kong, login("first-password"))
    found = await plan(kong, login("first-password", "x"), TAG)
    (operation,) = found.operations
    assert "password" not in operation.body
    await carry_out(kong, found, keep_order)
    assert (await plan(kong, login("first-password", "x"), TAG)).empty


async def test_nothing_that_is_shown_carries_a_secret(kong: KongInMemory) -> None:
    cert, key = make_certificate(0)
    secrets = ["very-secret-key", "very-secret-password", "very-secret-body", key.splitlines()[1]]
    document = {
        "certificates": [{"cert": cert, "key": key}],
        "plugins": [{"name": "key-auth", "config": {"anonymous": "x"}}],
        "consumers": [
            {
                "username": "alice",
                "keyauth_credentials": [{"key": "very-secret-key"}],
                "basicauth_credentials": [{"username": "a", "password": "very-secret-password"}],
            }
        ],
    }
    found = await plan(kong, document, TAG)
    theirs = await post(kong, "/consumers", username="theirs")
    await post(kong, "/consumers/theirs/key-auth", key="very-secret-key")
    journal = Journal()
    applied = await apply(kong, found.prepare, journal)
    assert [failure.reason for failure in applied.failed] == ["NameTaken"]
    shown = json.dumps(found.to_json()) + repr(found) + repr(applied) + repr(journal)
    shown += json.dumps([failure.to_json() for failure in applied.failed]) + str(theirs["id"])
    assert [secret for secret in secrets if secret in shown] == []


async def test_kinds_that_no_database_gets(kong: KongInMemory) -> None:
    with pytest.raises(Invalid, match="degraphql_routes") as caught:
        await plan(kong, {"degraphql_routes": [{"uri": "/"}]}, TAG)
    assert caught.value.reason == "KindUnsupported"
    assert (await plan(kong, {"licenses": [{"payload": "x"}]}, TAG)).skipped == ("licenses",)


def test_memberships_have_a_way_of_their_own() -> None:
    kind = KINDS["consumer_group_consumers"]
    row = {"consumer_group": {"id": "g"}, "consumer": {"id": "c"}}
    assert locate_collection(kind, row) == "/consumer_groups/g/consumers"
    assert locate_entity(kind, row) == "/consumer_groups/g/consumers/c"
    target = {"id": str(uuid4()), "upstream": {"id": "u/1"}}
    assert locate_entity(KINDS["targets"], target) == f"/upstreams/u%2F1/targets/{target['id']}"
