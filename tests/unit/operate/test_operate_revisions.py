"""Revisions: stored in chunks, numbered once, found damaged, safe against kills, other writers and the pruning."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_kube import FakeKube, Killed

from konverge.errors import Conflict, NotFound, Unavailable, VerificationFailed
from konverge.kong.declarative import serialise
from konverge.kube.resources import CONFIG_REVISIONS, PROXY_FLEETS, SECRETS
from konverge.model.fleet import Fleet, FleetSpec, FleetStatus
from konverge.model.revision import Revision, RevisionOutcome, RevisionStatus
from konverge.operate import revisions
from konverge.operate.fleets import parse_fleet
from konverge.operate.revisions import (
    CHUNK_TYPE,
    list_records,
    list_revisions,
    load_revision,
    read_versions,
    record_verdict,
    store_revision,
)

HISTORY_LIMIT = FleetSpec(proxy_service="s").history_limit
PENDING, GOOD = RevisionOutcome.PENDING, RevisionOutcome.GOOD
HARMFUL, SUPERSEDED = RevisionOutcome.HARMFUL, RevisionOutcome.SUPERSEDED
NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def fleet(kube: FakeKube) -> Fleet:
    body = kube.put(PROXY_FLEETS, {"metadata": {"name": "shop"}, "spec": FleetSpec(proxy_service="s").to_json()})
    return parse_fleet(body)


def draft(content: bytes = b'{"services":[]}', **fields: Any) -> Revision:
    return Revision(number=0, content=content, marker="m", routes=2, services=1, **fields)


def chunks(kube: FakeKube) -> list[str]:
    return sorted(s["metadata"]["name"] for s in kube.all(SECRETS))


async def test_what_is_stored_is_what_is_loaded(kube: FakeKube, fleet: Fleet) -> None:
    stored = await store_revision(kube, fleet, draft(), author="me")
    loaded = await load_revision(kube, fleet, stored.number)
    assert stored.number == 1
    assert loaded == stored
    assert (loaded.content, loaded.marker, loaded.routes) == (draft().content, "m", 2)
    spec = kube.one(CONFIG_REVISIONS, "shop-000001")["spec"]
    assert spec["author"] == "me"
    assert spec["hash"] == draft().hash


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_large_content_is_cut_and_put_together_again(
    kube: FakeKube, fleet: Fleet, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "CHUNK", 1000)
    content = random.Random(size).randbytes(size * 1000 - 500)
    stored = await store_revision(kube, fleet, draft(content))
    assert kube.one(CONFIG_REVISIONS, "shop-000001")["spec"]["chunks"] == size == len(chunks(kube))
    assert (await load_revision(kube, fleet, stored.number)).content == content


async def test_no_secret_is_larger_than_the_limit_of_the_api(kube: FakeKube, fleet: Fleet) -> None:
    content = random.Random(1).randbytes(revisions.CHUNK * 2 + 1)
    await store_revision(kube, fleet, draft(content))
    sizes = [len(s["data"]["content"]) for s in kube.all(SECRETS)]
    assert len(sizes) == 3
    assert max(sizes) < 1024 * 1024


async def test_the_same_content_keeps_its_number_and_writes_nothing(kube: FakeKube, fleet: Fleet) -> None:
    first = await store_revision(kube, fleet, draft())
    before = list(kube.writes)
    assert (await store_revision(kube, fleet, draft())).number == first.number
    assert kube.writes == before


async def test_owners_and_the_removal_of_what_is_old_can_come_later(kube: FakeKube, fleet: Fleet) -> None:
    work: list[Coroutine[Any, Any, None]] = []
    small = fleet.replace(spec=fleet.spec.replace(history_limit=2))
    for content in (b"a", b"b", b"c"):
        await store_revision(kube, small, draft(content), later=work.append)
    assert (await load_revision(kube, small, 3)).content == b"c"
    assert len(kube.all(CONFIG_REVISIONS)) == 3
    assert not any(secret["metadata"].get("ownerReferences") for secret in kube.all(SECRETS))
    for piece in work:
        await piece
    assert [body["metadata"]["name"] for body in kube.all(CONFIG_REVISIONS)] == ["shop-000002", "shop-000003"]
    owners = {secret["metadata"]["ownerReferences"][0]["name"] for secret in kube.all(SECRETS)}
    assert owners == {"shop-000002", "shop-000003"}


async def test_a_left_over_that_was_cut_in_another_way_is_written_over(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft(b"a"))
    (name,) = chunks(kube)
    kube.drop(CONFIG_REVISIONS, "shop-000001")
    kube.put(SECRETS, {"metadata": {"name": name}, "data": {"content": "bGVmdCBvdmVy"}})
    await store_revision(kube, fleet, draft(b"a"))
    assert (await load_revision(kube, fleet, 1)).content == b"a"


async def test_a_configuration_of_several_members_is_one_again(
    kube: FakeKube, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "MEMBER", 100)
    content = random.Random(7).randbytes(950)
    await store_revision(kube, fleet, draft(content))
    assert (await load_revision(kube, fleet, 1)).content == content


async def test_content_that_comes_back_gets_a_new_number(kube: FakeKube, fleet: Fleet) -> None:
    numbers = [(await store_revision(kube, fleet, draft(content))).number for content in (b"a", b"b", b"a")]
    assert numbers == [1, 2, 3]
    assert (await load_revision(kube, fleet, 3)).content == b"a"


async def test_everything_is_owned_so_that_it_goes_with_the_fleet(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft())
    kube.drop(PROXY_FLEETS, "shop")
    assert kube.all(CONFIG_REVISIONS) == []
    assert kube.all(SECRETS) == []


async def test_a_number_that_does_not_exist_names_those_that_do(kube: FakeKube, fleet: Fleet) -> None:
    for content in (b"a", b"b"):
        await store_revision(kube, fleet, draft(content))
    with pytest.raises(NotFound, match=r"default/shop has no revision 9; it has: 2, 1") as caught:
        await load_revision(kube, fleet, 9)
    assert caught.value.reason == "RevisionNotFound"


def flip(data: bytes) -> bytes:
    return data[:12] + bytes([data[12] ^ 0xFF]) + data[13:]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: b"no gzip at all", id="foreign"),
        pytest.param(flip, id="bit"),
        pytest.param(lambda data: revisions.gzip.compress(b"other"), id="other"),
    ],
)
async def test_damaged_bytes_are_found_and_the_object_is_named(kube: FakeKube, fleet: Fleet, damage: Any) -> None:
    await store_revision(kube, fleet, draft(b"x" * 500 + bytes(range(256))))
    secret = kube.all(SECRETS)[0]
    secret["data"]["content"] = base64.b64encode(damage(base64.b64decode(secret["data"]["content"]))).decode()
    with pytest.raises(VerificationFailed, match="ConfigRevision default/shop-000001") as caught:
        await load_revision(kube, fleet, 1)
    assert caught.value.reason == "RevisionDamaged"
    assert "xxxx" not in str(caught.value)


async def test_a_missing_chunk_is_damage(kube: FakeKube, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revisions, "CHUNK", 100)
    await store_revision(kube, fleet, draft(random.Random(0).randbytes(450)))
    kube.drop(SECRETS, chunks(kube)[2])
    with pytest.raises(VerificationFailed, match="cannot be read") as caught:
        await load_revision(kube, fleet, 1)
    assert caught.value.reason == "RevisionDamaged"


async def test_two_writers_of_different_content_get_two_numbers(kube: FakeKube, fleet: Fleet) -> None:
    first, second = await asyncio.gather(
        store_revision(kube, fleet, draft(b"a")), store_revision(kube, fleet, draft(b"b"))
    )
    assert {first.number, second.number} == {1, 2}
    for written in (first, second):
        assert (await load_revision(kube, fleet, written.number)).content == written.content
    assert len(chunks(kube)) == 2


async def test_two_writers_of_the_same_content_get_one_number(kube: FakeKube, fleet: Fleet) -> None:
    written = await asyncio.gather(*(store_revision(kube, fleet, draft(b"a")) for _ in range(3)))
    assert [r.number for r in written] == [1, 1, 1]
    assert len(kube.all(CONFIG_REVISIONS)) == 1
    assert (await load_revision(kube, fleet, 1)).content == b"a"


async def test_a_taken_number_that_no_list_shows_is_passed_over(kube: FakeKube, fleet: Fleet) -> None:
    kube.put(CONFIG_REVISIONS, {"metadata": {"name": "shop-000001"}, "spec": {}})
    assert (await store_revision(kube, fleet, draft())).number == 2


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(7))
async def test_killed_at_any_write_it_is_either_there_or_invisible(
    kube: FakeKube, fleet: Fleet, write: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "CHUNK", 100)
    content = random.Random(3).randbytes(250)  # three chunks, one revision, three owners
    kube.kill_at(write, after=after)
    with pytest.raises(Killed):
        await store_revision(kube, fleet, draft(content))
    kube.heal()
    for spec in await list_revisions(kube, fleet):
        assert (await load_revision(kube, fleet, spec.number)).content == content
    stored = await store_revision(kube, fleet, draft(content))
    assert stored.number == 1
    assert (await load_revision(kube, fleet, 1)).content == content
    assert len(chunks(kube)) == 3


@pytest.mark.parametrize("write", range(4))
async def test_what_a_killed_writer_left_behind_goes(
    kube: FakeKube, fleet: Fleet, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revisions, "CHUNK", 100)
    kube.kill_at(write, after=True)
    with pytest.raises(Killed):
        await store_revision(kube, fleet, draft(random.Random(4).randbytes(250)))
    kube.heal()
    other = await store_revision(kube, fleet, draft(b"other"))
    kept = {spec.number for spec in await list_revisions(kube, fleet)}
    numbers = {int(s["metadata"]["labels"]["konverge.dev/revision"]) for s in kube.all(SECRETS)}
    assert numbers == kept
    assert len(chunks(kube)) == (1 if other.number == 1 else 4)


async def test_the_bytes_of_a_writer_at_work_are_left_alone(kube: FakeKube, fleet: Fleet) -> None:
    labels = {"konverge.dev/fleet": "shop", "konverge.dev/revision": "2"}
    kube.put(SECRETS, {"metadata": {"name": "shop-000002-cafe-0", "labels": labels}, "type": CHUNK_TYPE, "data": {}})
    past = {"konverge.dev/fleet": "shop", "konverge.dev/revision": "1"}
    kube.put(SECRETS, {"metadata": {"name": "sources-of-1", "labels": past}, "type": "Opaque", "data": {}})
    other = {"konverge.dev/fleet": "other", "konverge.dev/revision": "1"}
    kube.put(SECRETS, {"metadata": {"name": "other-000001-cafe-0", "labels": other}, "data": {}})
    kube.put(SECRETS, {"metadata": {"name": "identity", "labels": {"konverge.dev/fleet": "shop"}}, "data": {}})
    await store_revision(kube, fleet, draft())
    assert {"shop-000002-cafe-0", "sources-of-1", "other-000001-cafe-0", "identity"} <= set(chunks(kube))


async def test_the_history_is_bounded_and_keeps_what_counts(kube: FakeKube, fleet: Fleet) -> None:
    status = FleetStatus(current_revision=3, last_good_revision=2)
    for number in range(1, 16):
        await store_revision(kube, fleet.replace(status=status), draft(b"%d" % number))
    kept = [spec.number for spec in await list_revisions(kube, fleet)]
    assert kept == [*range(15, 15 - HISTORY_LIMIT, -1), 3, 2]
    for number in kept:
        assert (await load_revision(kube, fleet, number)).content == b"%d" % number
    assert len(chunks(kube)) == len(kept)


async def test_the_limit_is_the_fleets_own(kube: FakeKube, fleet: Fleet) -> None:
    small = fleet.replace(spec=fleet.spec.replace(history_limit=2))
    for number in range(1, 6):
        await store_revision(kube, small, draft(b"%d" % number))
    assert [spec.number for spec in await list_revisions(kube, fleet)] == [5, 4]


async def test_what_was_pinned_after_the_caller_had_read_the_fleet_stays(kube: FakeKube, fleet: Fleet) -> None:
    small = fleet.replace(spec=fleet.spec.replace(history_limit=2))
    for number in range(1, 4):
        await store_revision(kube, small, draft(b"%d" % number))
    kube.one(PROXY_FLEETS, "shop")["spec"]["pinnedRevision"] = 2
    for number in range(4, 7):
        await store_revision(kube, small, draft(b"%d" % number))
    assert [spec.number for spec in await list_revisions(kube, fleet)] == [6, 5, 2]


async def test_the_newest_good_revision_stays_although_no_status_names_it(kube: FakeKube, fleet: Fleet) -> None:
    small = fleet.replace(spec=fleet.spec.replace(history_limit=2))
    await store_revision(kube, small, draft(b"good"))
    await record_verdict(kube, small, 1, GOOD)
    for number in range(2, 6):
        await store_revision(kube, small, draft(b"%d" % number))
        await record_verdict(kube, small, number, HARMFUL, "ConfigurationRefused")
    assert [spec.number for spec in await list_revisions(kube, fleet)] == [5, 4, 1]


async def test_pruning_goes_on_where_it_was_killed(kube: FakeKube, fleet: Fleet) -> None:
    for number in range(1, HISTORY_LIMIT + 1):
        await store_revision(kube, fleet, draft(b"%d" % number))
    kube.kill_at(3, after=False)  # chunk, revision, owner: then the first deletion
    with pytest.raises(Killed):
        await store_revision(kube, fleet, draft(b"next"))
    kube.heal()
    await store_revision(kube, fleet, draft(b"one more"))
    assert len(await list_revisions(kube, fleet)) == HISTORY_LIMIT
    assert len(chunks(kube)) == HISTORY_LIMIT


async def test_an_api_that_fails_is_no_lost_revision(kube: FakeKube, fleet: Fleet) -> None:
    kube.fail(1, lambda: Unavailable("gone"), lambda call: call.resource == CONFIG_REVISIONS and call.writes)
    with pytest.raises(Unavailable):
        await store_revision(kube, fleet, draft())
    assert await list_revisions(kube, fleet) == []
    assert (await store_revision(kube, fleet, draft())).number == 1


def test_the_bytes_are_not_shown() -> None:
    secret = replace(draft(b"hunter2"), number=3)
    assert "hunter2" not in repr(secret)
    assert "hunter2" not in str(secret)


async def verdicts(kube: FakeKube, fleet: Fleet) -> dict[int, RevisionStatus]:
    return {record.number: record.status for record in await list_records(kube, fleet)}


async def test_a_verdict_is_written_once_with_its_time(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft())
    assert (await verdicts(kube, fleet))[1] == RevisionStatus()
    await record_verdict(kube, fleet, 1, GOOD, "Configured", "all 3", clock=lambda: NOW)
    before = list(kube.writes)
    later = NOW + timedelta(hours=1)
    status = await record_verdict(kube, fleet, 1, GOOD, "Configured", "all 3", clock=lambda: later)
    assert kube.writes == before
    assert status == RevisionStatus(outcome=GOOD, reason="Configured", message="all 3", since=NOW, last_good=NOW)
    assert (await verdicts(kube, fleet))[1] == status


async def test_a_harmful_revision_remembers_when_it_was_good(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft())
    await record_verdict(kube, fleet, 1, GOOD, clock=lambda: NOW)
    later = NOW + timedelta(hours=1)
    await record_verdict(kube, fleet, 1, HARMFUL, "TooManyErrors", "x" * 5000, clock=lambda: later)
    status = (await verdicts(kube, fleet))[1]
    assert (status.outcome, status.since, status.last_good) == (HARMFUL, later, NOW)
    assert len(status.message) == revisions.MESSAGE_LIMIT


@pytest.mark.parametrize("judged", [GOOD, HARMFUL])
@pytest.mark.parametrize("weaker", [PENDING, SUPERSEDED])
async def test_a_judged_revision_is_not_called_superseded(
    kube: FakeKube, fleet: Fleet, judged: RevisionOutcome, weaker: RevisionOutcome
) -> None:
    await store_revision(kube, fleet, draft())
    await record_verdict(kube, fleet, 1, judged)
    await record_verdict(kube, fleet, 1, weaker)
    assert (await verdicts(kube, fleet))[1].outcome is judged


async def test_a_good_one_supersedes_what_nobody_judged(kube: FakeKube, fleet: Fleet) -> None:
    for content in (b"a", b"b", b"c", b"d"):
        await store_revision(kube, fleet, draft(content))
    await record_verdict(kube, fleet, 1, HARMFUL, "ConfigurationRefused")
    await record_verdict(kube, fleet, 3, GOOD)
    outcomes = [status.outcome for status in (await verdicts(kube, fleet)).values()]
    assert outcomes == [PENDING, GOOD, SUPERSEDED, HARMFUL]
    assert (await verdicts(kube, fleet))[2].message == "revision 3 took its place"


async def test_a_verdict_on_a_pruned_revision_is_no_failure(kube: FakeKube, fleet: Fleet) -> None:
    assert await record_verdict(kube, fleet, 7, GOOD) is None
    assert kube.writes == []


async def test_a_verdict_survives_another_writer(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft())
    kube.fail(2, lambda: Conflict("stale"), lambda call: call.subresource == "status")
    await record_verdict(kube, fleet, 1, GOOD)
    assert (await verdicts(kube, fleet))[1].outcome is GOOD


def document(**routes: str) -> bytes:
    tags = {name: ["k8s-name:" + name, "k8s-namespace:shop", "k8s-kind:Ingress"] for name in routes}
    listed = [{"name": name, "paths": [path], "tags": tags[name]} for name, path in routes.items()]
    return serialise({"services": [{"name": "web", "host": "web", "routes": listed}]})


async def reasons(kube: FakeKube, fleet: Fleet) -> list[str]:
    return [record.spec.reason for record in await list_records(kube, fleet)]


async def test_the_reason_names_the_objects_that_changed(kube: FakeKube, fleet: Fleet) -> None:
    for content in (document(a="/a"), document(a="/b", c="/c"), document(c="/c"), b"no JSON at all"):
        await store_revision(kube, fleet, draft(content))
    assert await reasons(kube, fleet) == [
        "",
        "removed: Ingress/shop/a",
        "added: Ingress/shop/c; changed: Ingress/shop/a",
        "the first configuration",
    ]


async def test_a_damaged_revision_before_it_holds_up_no_change(kube: FakeKube, fleet: Fleet) -> None:
    await store_revision(kube, fleet, draft(document(a="/a")))
    for secret in kube.all(SECRETS):
        kube.drop(SECRETS, secret["metadata"]["name"])
    stored = await store_revision(kube, fleet, draft(document(a="/b")))
    assert stored.number == 2
    assert (await reasons(kube, fleet))[0] == ""


async def test_a_caller_that_knows_the_revision_before_spares_its_reading(kube: FakeKube, fleet: Fleet) -> None:
    first = await store_revision(kube, fleet, draft(document(a="/a")))
    kube.calls.clear()
    await store_revision(kube, fleet, draft(document(a="/b")), previous=first)
    assert not [call for call in kube.calls if call.resource == SECRETS and call.name and not call.writes]
    assert (await reasons(kube, fleet))[0] == "changed: Ingress/shop/a"


async def test_a_given_reason_and_the_versions_of_the_sources_are_stored(kube: FakeKube, fleet: Fleet) -> None:
    sources = [
        {"kind": kind, "metadata": {"resourceVersion": v}} for kind, v in (("A", "9"), ("A", "10"), ("B", "x"))
    ]
    await store_revision(kube, fleet, draft(), reason="fallback without A/b/c", sources=read_versions(sources))
    spec = kube.one(CONFIG_REVISIONS, "shop-000001")["spec"]
    assert (spec["reason"], spec["sources"]) == ("fallback without A/b/c", {"A": "10"})


async def test_a_revision_whose_spec_cannot_be_read_is_damage_and_hides_no_other(
    kube: FakeKube, fleet: Fleet
) -> None:
    await store_revision(kube, fleet, draft(b"a"))
    await store_revision(kube, fleet, draft(b"b"))
    kube.one(CONFIG_REVISIONS, "shop-000001")["spec"] = {"fleet": "shop", "number": "none"}
    assert [spec.number for spec in await list_revisions(kube, fleet)] == [2]
    with pytest.raises(VerificationFailed, match="shop-000001: its spec cannot be read") as caught:
        await load_revision(kube, fleet, 1)
    assert caught.value.reason == "RevisionDamaged"
