"""What is sealed opens in its own place, whole and under its key; everything else is named and shows no secret."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.errors import Conflict, Invalid
from konverge.kube.resources import SEALED_IDENTITIES
from konverge.model.identity import SealedSpec
from konverge.pki.sealing.envelope import Place, join_parts, rewrap, seal, unseal
from konverge.pki.sealing.keyring import Keyring, generate_key, open_environment, open_file, parse_keys
from konverge.pki.sealing.store import SealedStore
from tests.unit.operate.fake_kube import FakeKube

FILES = {"tls.crt": b"-----BEGIN CERTIFICATE-----", "tls.key": b"hunter2-the-private-key", "ca.crt": b""}
HERE = Place("kong", "shop-authority")


def ring(*keys: str) -> Keyring:
    return Keyring(lambda: "\n".join(keys), "the test")


@pytest.fixture(scope="module")
def key() -> str:
    return generate_key()


async def refused(spec: SealedSpec, place: Place, keys: Keyring) -> Invalid:
    with pytest.raises(Invalid) as caught:
        await unseal(spec, place, keys)
    text = f"{caught.value!r} {caught.value}"
    assert "hunter2" not in text
    assert caught.value.__cause__ is None
    return caught.value


async def test_round_trip_hides_everything_but_names(key: str) -> None:
    spec = await seal(FILES, HERE, "shop", ring(key))
    assert await unseal(spec, HERE, ring(key)) == FILES
    stored = str(spec.to_json())
    for secret in (FILES["tls.key"], base64.b64encode(FILES["tls.key"]), key.encode()):
        assert secret.decode() not in stored
    again = await seal(FILES, HERE, "shop", ring(key))
    assert again.wrapped_key != spec.wrapped_key
    assert all(again.files[name] != spec.files[name] for name in FILES)


@given(files=st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=200), max_size=5))
@settings(max_examples=40, deadline=None)
async def test_any_files_come_back(files: dict[str, bytes]) -> None:
    key = "A" * 43 + "="
    assert await unseal(await seal(files, HERE, "shop", ring(key)), HERE, ring(key)) == files


async def test_every_flipped_bit_is_found(key: str) -> None:
    spec = await seal(FILES, HERE, "shop", ring(key))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for name in FILES:
        raw = bytearray(base64.b64decode(spec.files[name]))
        for _ in range(20):
            bit = dice.randrange(len(raw) * 8)
            spoilt = bytearray(raw)
            spoilt[bit // 8] ^= 1 << bit % 8
            changed = spec.replace(files={**spec.files, name: base64.b64encode(spoilt).decode()})
            error = await refused(changed, HERE, ring(key))
            assert (error.reason, name in error.message, "kong/shop-authority" in error.message) == (
                "SealBroken",
                True,
                True,
            )
    wrapped = bytearray(base64.b64decode(spec.wrapped_key))
    wrapped[-1] ^= 1
    error = await refused(spec.replace(wrapped_key=base64.b64encode(wrapped).decode()), HERE, ring(key))
    assert "spec.wrappedKey" in error.message


async def test_what_was_moved_swapped_mixed_or_removed_does_not_open(key: str) -> None:
    spec = await seal(FILES, HERE, "shop", ring(key))
    older = await seal(FILES, HERE, "shop", ring(key))
    for place in (Place("kong", "other"), Place("other", "shop-authority"), Place("kon", "gshop-authority")):
        assert (await refused(spec, place, ring(key))).reason == "SealBroken"
    files = dict(spec.files)
    swapped = {**files, "tls.key": files["tls.crt"], "tls.crt": files["tls.key"]}
    mixed = {**files, "tls.key": older.files["tls.key"]}
    fewer = {name: text for name, text in files.items() if name != "ca.crt"}
    for changed in (swapped, mixed, fewer, {**files, "extra": files["tls.key"]}, {**files, "tls.key": "hunter2"}):
        assert (await refused(spec.replace(files=changed), HERE, ring(key))).reason == "SealBroken"
    assert (await refused(spec.replace(wrapped_key=older.wrapped_key), HERE, ring(key))).reason == "SealBroken"
    assert (await refused(spec.replace(format="rot13"), HERE, ring(key))).reason == "UnknownSealFormat"


def test_words_bind_without_running_into_each_other() -> None:
    assert join_parts("a", "bc") != join_parts("ab", "c") != join_parts("a", "b", "c")


async def test_a_new_key_in_front_seals_and_the_old_one_still_opens(key: str) -> None:
    new = generate_key()
    old_spec = await seal(FILES, HERE, "shop", ring(key))
    both = ring(new, key)
    assert await unseal(old_spec, HERE, both) == FILES
    fresh = await rewrap(old_spec, HERE, both)
    assert fresh.files == old_spec.files
    assert (fresh.key_id, old_spec.key_id) == (await ring(new).current(), await ring(key).current())
    assert await unseal(fresh, HERE, ring(new)) == FILES
    error = await refused(old_spec, HERE, ring(new))
    assert error.reason == "KeyEncryptionKeyMissing"
    assert old_spec.key_id in error.message
    relabelled = old_spec.replace(key_id=fresh.key_id)
    assert (await refused(relabelled, HERE, both)).reason == "SealBroken"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no key"),
        ("# only words\n\n", "no key"),
        ("hunter2", "Line 1"),
        (base64.b64encode(b"hunter2" * 4).decode(), "Line 1"),
        ("# first\n" + "A" * 43 + "=\nhunter2 hunter2", "Line 3"),
    ],
)
def test_bad_keys_are_named_by_line_and_never_quoted(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words) as caught:
        parse_keys(text, "the file k")
    assert caught.value.reason == "BadKeyEncryptionKey"
    assert "hunter2" not in str(caught.value)


async def test_keys_come_from_a_file_and_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    path = tmp_path / "keys"
    for missing in (open_file(str(path)), open_file(str(tmp_path)), open_environment("NO_SUCH_KEY")):
        with pytest.raises(Invalid) as caught:
            await missing.current()
        assert caught.value.reason == "KeyEncryptionKeyMissing"
    opened = open_file(str(path))
    path.write_text(f"# in force\n{key}\n")
    first = await opened.current()
    new = generate_key()
    path.write_text(f"{new}\n{key}\n")
    assert await opened.current() != first
    monkeypatch.setenv("SHOP_KEY", f"{new} {key}")
    assert await open_environment("SHOP_KEY").current() == await opened.current()
    assert key not in repr(opened)


async def store_of(*keys: str) -> tuple[FakeKube, SealedStore]:
    kube = FakeKube()
    return kube, SealedStore(kube, "kong", "shop", ring(*keys), owner={"kind": "ProxyFleet", "uid": "u", "name": "s"})


async def test_store_keeps_versions_and_owner(key: str) -> None:
    kube, store = await store_of(key)
    assert await store.load("a") is None
    first = await store.store("a", FILES, annotations={"x": "1"})
    body = kube.one(SEALED_IDENTITIES, "a", "kong")
    assert body["metadata"]["labels"]["konverge.dev/fleet"] == "shop"
    assert body["metadata"]["ownerReferences"][0]["uid"] == "u"
    second = await store.store("a", {"tls.key": b"two"}, version=first.version)
    loaded = await store.load("a")
    assert loaded is not None
    assert (loaded.files, loaded.version, loaded.annotations["x"]) == ({"tls.key": b"two"}, second.version, "1")
    assert "two" not in repr(loaded)
    for arguments in ({"version": first.version}, {}):
        with pytest.raises(Conflict):
            await store.store("a", FILES, **arguments)
    with pytest.raises(Conflict):
        await store.delete("a", version=first.version)
    await store.delete("a", version=second.version)
    await store.delete("a")
    with pytest.raises(Conflict):
        await store.store("a", FILES, version=second.version)


async def test_objects_changed_in_the_store_are_named(key: str) -> None:
    kube, store = await store_of(key)
    await store.store("a", FILES)
    await store.store("b", FILES)
    a: dict[str, Any] = kube.one(SEALED_IDENTITIES, "a", "kong")
    b: dict[str, Any] = kube.one(SEALED_IDENTITIES, "b", "kong")
    b["spec"] = a["spec"]
    with pytest.raises(Invalid, match="SealedIdentity kong/b") as caught:
        await store.load("b")
    assert caught.value.reason == "SealBroken"
    a["spec"] = {"fleet": "shop", "files": "no"}
    with pytest.raises(Invalid, match=r"spec cannot be read: .*files"):
        await store.load("a")


async def test_rewrap_leaves_what_is_current_and_what_is_not_there(key: str) -> None:
    kube, store = await store_of(key)
    await store.store("a", FILES)
    version = kube.one(SEALED_IDENTITIES, "a", "kong")["metadata"]["resourceVersion"]
    assert not await store.rewrap("a")
    assert not await store.rewrap("nothing")
    assert kube.one(SEALED_IDENTITIES, "a", "kong")["metadata"]["resourceVersion"] == version
    store.keys = ring(generate_key(), key)
    assert await store.rewrap("a")
    assert not await store.rewrap("a")
