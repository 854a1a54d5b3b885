"""Moving and rewrapping: at no moment is an identity nowhere, and a cut at any write is made good by repeating."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from konverge.errors import CheckRefused, Conflict, Forbidden, Invalid, UsageError, VerificationFailed
from konverge.kube.resources import PROXY_FLEETS, SEALED_IDENTITIES, SECRETS
from konverge.model.fleet import Fleet, FleetSpec, KeyStoreSpec
from konverge.model.fleet import Identity as IdentitySpec
from konverge.operate.fleets import load_fleet, parse_fleet
from konverge.operate.identities import ensure_identity, load_controller, load_keys, open_store
from konverge.operate.sealing import StoreKind, list_kept, migrate_store, rewrap_keys
from konverge.pki.sealing.keyring import generate_key
from tests.unit.operate.fake_kube import Call, FakeKube, Killed

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class World:
    """A fleet whose key encryption key is in a file."""

    def __init__(self, path: Path, kind: StoreKind) -> None:
        self.kube = FakeKube()
        self.path = path
        self.path.write_text(generate_key())
        store = KeyStoreSpec(kind=kind, key_source="file", key_name=str(path))
        spec = FleetSpec(proxy_service="s", identity=IdentitySpec(store=store))
        self.body = self.kube.put(PROXY_FLEETS, {"metadata": {"name": "shop"}, "spec": spec.to_json()})

    async def fleet(self) -> Fleet:
        return await load_fleet(self.kube, "shop", "default")

    async def serials(self, fleet: Fleet | None = None) -> tuple[str, ...]:
        keys = await load_keys(self.kube, fleet or await self.fleet(), lambda: NOW)
        leaves = (keys.controller.files.identity, keys.proxies.files.identity, keys.authorities.current.identity)
        return tuple(leaf.certificate.serial for leaf in leaves)

    async def open(self) -> World:
        await ensure_identity(self.kube, await self.fleet(), lambda: NOW)
        return self

    def names(self) -> tuple[list[str], list[str]]:
        """The Secrets and the sealed objects that there are."""
        return tuple(  # type: ignore[return-value]
            sorted(body["metadata"]["name"] for body in self.kube.all(kind)) for kind in (SECRETS, SEALED_IDENTITIES)
        )


SEALED = ["shop-authority", "shop-controller-identity"]
MOUNTED = ["shop-gateway-identity"]


@pytest.fixture(params=["secret", "sealed"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return await World(tmp_path / "keys", request.param).open()


def other(kind: str) -> StoreKind:
    return "sealed" if kind == "secret" else "secret"


async def test_sealed_mode_leaves_the_mounted_secret_only(tmp_path: Path) -> None:
    world = await World(tmp_path / "keys", "sealed").open()
    assert world.names() == (MOUNTED, SEALED)
    before = await world.serials()
    await ensure_identity(world.kube, await world.fleet(), lambda: NOW)
    assert await world.serials() == before
    assert (await load_controller(world.kube, await world.fleet(), lambda: NOW)).identity.certificate.serial in before
    views = {view.place: view for view in await list_kept(world.kube, await world.fleet())}
    assert sorted(views) == [
        "SealedIdentity default/shop-authority",
        "SealedIdentity default/shop-controller-identity",
        "Secret default/shop-gateway-identity",
    ]
    assert all(view.moved and view.current and not view.problem for view in views.values())


async def test_moving_there_and_back_keeps_every_identity(world: World) -> None:
    before, start = await world.serials(), (await world.fleet()).spec.identity.store.kind
    for kind in (other(start), start):
        views = await migrate_store(world.kube, await world.fleet(), kind)
        assert all(view.moved and not view.problem for view in views)
        assert (await world.fleet()).spec.identity.store.kind == kind
        assert await world.serials() == before
        assert world.names() == ((MOUNTED, SEALED) if kind == "sealed" else (sorted(MOUNTED + SEALED), []))
        assert await migrate_store(world.kube, await world.fleet(), kind) == views


@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("number", range(5))
async def test_cut_at_any_write_readers_of_both_states_go_on_and_repeating_ends_it(
    world: World, number: int, after: bool
) -> None:
    old = await world.fleet()
    kind, before = other(old.spec.identity.store.kind), await world.serials()
    world.kube.kill_at(number, after=after)
    with pytest.raises(Killed):
        await migrate_store(world.kube, old, kind)
    world.kube.heal()
    assert await world.serials() == before
    assert await world.serials(old) == before
    await ensure_identity(world.kube, old, lambda: NOW)
    await migrate_store(world.kube, await world.fleet(), kind)
    assert world.names() == ((MOUNTED, SEALED) if kind == "sealed" else (sorted(MOUNTED + SEALED), []))
    assert await world.serials() == before


async def test_at_every_moment_readers_find_the_identity(world: World) -> None:
    old, before = await world.fleet(), await world.serials()
    seen: list[tuple[int, int]] = []
    world.kube.after.append(lambda call: seen.append(tuple(map(len, world.names()))) if call.writes else None)  # type: ignore[arg-type]
    await migrate_store(world.kube, old, other(old.spec.identity.store.kind))
    assert len(seen) == 5
    assert all(secrets + sealed >= 3 for secrets, sealed in seen)
    world.kube.heal()
    assert await world.serials(old) == before


async def test_a_write_to_the_source_in_between_is_moved_too(world: World) -> None:
    old = await world.fleet()
    source = open_store(world.kube, old)
    held = await source.load(old.controller_secret)
    assert held is not None
    later = {**held.files, "note": b"later"}
    writer = source.home(old.controller_secret)
    done: list[Call] = []

    def interfere(call: Call) -> None:
        if call.resource == PROXY_FLEETS and call.method == "PATCH" and not done:
            done.append(call)

    world.kube.after.append(interfere)
    real = world.kube.request

    async def request(method: str, path: str, **options: object) -> bytes:
        answer = await real(method, path, **options)  # type: ignore[arg-type]
        if done and method == "PATCH":
            await writer.store(old.controller_secret, later, version=held.version)
        return answer

    world.kube.request = request  # type: ignore[method-assign]
    await migrate_store(world.kube, old, other(old.spec.identity.store.kind))
    moved = await open_store(world.kube, await world.fleet()).load(old.controller_secret)
    assert moved is not None
    assert moved.files["note"] == b"later"


async def test_both_written_since_the_copy_is_refused_and_nothing_is_lost(world: World) -> None:
    old = await world.fleet()
    kind = other(old.spec.identity.store.kind)
    world.kube.kill_at(2, after=True)  # both copied, the fleet told
    with pytest.raises(Killed):
        await migrate_store(world.kube, old, kind)
    world.kube.heal()
    fleet = await world.fleet()
    store = open_store(world.kube, fleet)
    for part in (store.home("shop-authority"), store.elsewhere("shop-authority")):
        held = await part.load("shop-authority")
        assert held is not None
        await part.store("shop-authority", {**held.files, "by": part.locate("x").encode()}, version=held.version)
    with pytest.raises(VerificationFailed, match="nothing was deleted") as caught:
        await migrate_store(world.kube, fleet, kind)
    assert caught.value.reason == "StoresDiffer"
    assert len(world.names()[0]) + len(world.names()[1]) == 5


async def test_a_writer_with_the_old_state_gets_conflict(world: World) -> None:
    old = await world.fleet()
    held = await open_store(world.kube, old).load(old.controller_secret)
    assert held is not None
    await migrate_store(world.kube, old, other(old.spec.identity.store.kind))
    with pytest.raises(Conflict) as caught:
        await open_store(world.kube, old).store(old.controller_secret, held.files, version=held.version)
    assert caught.value.reason == "NotMoved"


async def test_a_kind_changed_by_hand_makes_no_second_authority(world: World) -> None:
    before = await world.serials()
    kind = other((await world.fleet()).spec.identity.store.kind)
    world.kube.one(PROXY_FLEETS, "shop")["spec"]["identity"]["store"]["kind"] = kind
    await ensure_identity(world.kube, await world.fleet(), lambda: NOW)
    assert await world.serials() == before
    assert [v.moved for v in await list_kept(world.kube, await world.fleet())].count(False) == 2
    await migrate_store(world.kube, await world.fleet(), kind)
    assert await world.serials() == before


async def test_moving_to_sealed_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    world = await World(tmp_path / "keys", "secret").open()
    writes = len(world.kube.writes)
    world.path.unlink()
    with pytest.raises(Invalid) as caught:
        await migrate_store(world.kube, await world.fleet(), "sealed")
    assert caught.value.reason == "KeyEncryptionKeyMissing"
    world.kube.absent.add(SEALED_IDENTITIES)
    with pytest.raises(CheckRefused):
        await migrate_store(world.kube, await world.fleet(), "sealed")
    world.kube.one(PROXY_FLEETS, "shop")["spec"]["identity"]["store"]["keyName"] = ""
    with pytest.raises(UsageError, match="keyName"):
        await migrate_store(world.kube, await world.fleet(), "sealed")
    assert len(world.kube.writes) == writes


async def test_without_the_right_to_read_sealed_objects_plain_secrets_work(tmp_path: Path) -> None:
    world = World(tmp_path / "keys", "secret")
    world.kube.fail(1000, lambda: Forbidden("no"), lambda call: call.resource == SEALED_IDENTITIES)
    await world.open()
    assert len(await world.serials()) == 3
    assert len(await list_kept(world.kube, await world.fleet())) == 3


async def test_a_missing_key_names_the_object_and_is_a_problem_in_the_list(tmp_path: Path) -> None:
    world = await World(tmp_path / "keys", "sealed").open()
    world.path.write_text(generate_key())
    with pytest.raises(Invalid, match="SealedIdentity default/shop-authority is sealed under key"):
        await load_keys(world.kube, await world.fleet(), lambda: NOW)
    views = await list_kept(world.kube, await world.fleet())
    assert [bool(view.problem) for view in views] == [False, True, True]


@pytest.mark.parametrize("number", range(2))
async def test_rewrapping_is_resumed_and_the_old_key_may_go(tmp_path: Path, number: int) -> None:
    world = await World(tmp_path / "keys", "sealed").open()
    before, old = await world.serials(), world.path.read_text()
    assert await rewrap_keys(world.kube, await world.fleet()) == []
    new = generate_key()
    world.path.write_text(f"{new}\n{old}\n")
    assert await world.serials() == before
    world.kube.kill_at(number, after=True)
    with pytest.raises(Killed):
        await rewrap_keys(world.kube, await world.fleet())
    world.kube.heal()
    assert await world.serials() == before
    await rewrap_keys(world.kube, await world.fleet())
    world.path.write_text(new)
    assert await world.serials() == before
    assert all(view.current for view in await list_kept(world.kube, await world.fleet()))


async def test_rewrapping_goes_on_past_what_does_not_open(tmp_path: Path) -> None:
    world = await World(tmp_path / "keys", "sealed").open()
    spoilt = world.kube.one(SEALED_IDENTITIES, "shop-authority")
    spoilt["spec"]["keyId"] = "0" * 16
    world.path.write_text(f"{generate_key()}\n{world.path.read_text()}")
    with pytest.raises(Invalid, match="shop-authority"):
        await rewrap_keys(world.kube, await world.fleet())
    views = {v.name: v for v in await list_kept(world.kube, await world.fleet()) if v.key_id}
    assert views["shop-controller-identity"].current
    assert views["shop-authority"].problem


def test_a_sealed_fleet_parses(tmp_path: Path) -> None:
    world = World(tmp_path / "keys", "sealed")
    assert parse_fleet(world.body).spec.identity.store.kind == "sealed"
