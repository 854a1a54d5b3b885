"""Canonical bytes, hashes, and what must never be shown."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
import pytest

from konverge.kong.declarative import compare, digest, redact, serialise
from konverge.kong.declarative.redaction import HIDDEN, MAX_SHOWN, REDACTED, is_sensitive, show

SECRET = "hush-hush"
CONSUMER: dict[str, Any] = {
    "username": "bob",
    "keyauth_credentials": [{"key": SECRET, "ttl": 5}],
    "basicauth_credentials": [{"username": "bob", "password": SECRET}],
    "hmacauth_credentials": [{"username": "bob", "secret": SECRET}],
    "jwt_secrets": [{"key": "issuer", "secret": SECRET, "algorithm": "HS256"}],
    "oauth2_credentials": [
        {"name": "n", "client_id": "i", "client_secret": SECRET, "client_type": "x", "hash_secret": True}
    ],
    "acls": [{"group": "g"}],
    "mtls_auth_credentials": [{"subject_name": "s"}],
}
CONFIG = {
    "redis": {"password": SECRET, "host": "redis.example.com"},
    "client_secret": [SECRET],
    "add": {"headers": [f"Authorization: Basic {SECRET}", "X-Plain: shown"]},
    "key_names": ["apikey"],
    "token": "{vault://env/token}",
    "http_endpoint": f"https://user:{SECRET}@log.example.com/x",
    "hide_credentials": True,
}
DOCUMENT: dict[str, Any] = {
    "_format_version": "3.0",
    "consumers": [CONSUMER],
    "certificates": [{"cert": "public", "key": SECRET}],
    "licenses": [{"payload": SECRET}],
    "plugins": [{"name": "x", "config": CONFIG}],
    "services": [
        {
            "name": "s",
            "plugins": [{"name": "y", "config": CONFIG}],
            "routes": [{"name": "r", "plugins": [{"name": "z", "config": CONFIG}]}],
        }
    ],
    "vaults": [{"prefix": "v", "config": {"token": SECRET}}],
}


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    assert serialise({"b": 1, "a": [{"d": 1, "c": 2}]}) == b'{"a":[{"c":2,"d":1}],"b":1}'
    assert digest(b"x") == hashlib.md5(b"x").hexdigest()


def test_redaction_hides_every_secret_and_keeps_the_rest() -> None:
    redacted = redact(DOCUMENT)
    assert SECRET not in orjson.dumps(redacted).decode()
    consumer = redacted["consumers"][0]
    assert consumer["keyauth_credentials"] == [
        {"key": f"{{vault://{hashlib.sha256(SECRET.encode()).hexdigest()[:32]}}}"}
    ]
    assert consumer["basicauth_credentials"] == [{"username": "bob", "password": REDACTED}]
    assert consumer["jwt_secrets"] == [{"key": "issuer", "secret": REDACTED, "algorithm": "HS256"}]
    assert consumer["oauth2_credentials"] == [{"name": "n", "client_id": "i", "client_secret": REDACTED}]
    assert (consumer["acls"], consumer["mtls_auth_credentials"]) == ([{"group": "g"}], [{"subject_name": "s"}])
    config = redacted["plugins"][0]["config"]
    assert config["redis"]["host"] == "redis.example.com"
    assert config["http_endpoint"] == "https://redacted@log.example.com/x"
    assert config["add"]["headers"][1] == "X-Plain: shown"
    assert (config["key_names"], config["token"], config["hide_credentials"]) == (
        ["apikey"],
        "{vault://env/token}",
        True,
    )
    assert DOCUMENT["consumers"][0]["keyauth_credentials"][0]["key"] == SECRET


@pytest.mark.parametrize(
    "name", ["password", "client_secret", "api_key", "apikey", "private_key", "redis_password", "token", "key"]
)
def test_sensitive_names(name: str) -> None:
    assert is_sensitive(name)


@pytest.mark.parametrize(
    "name",
    ["key_names", "key_in_header", "hide_credentials", "minute", "token_endpoint", "claims_to_verify", "keyring"],
)
def test_harmless_names(name: str) -> None:
    assert not is_sensitive(name)


def test_values_for_people() -> None:
    assert show("routes", ("strip_path",), True) == "true"
    assert show("routes", ("paths",), ["/a", "/b"]) == "[/a, /b]"
    assert show("routes", ("paths",), None) == "(not set)"
    assert show("certificates", ("key",), SECRET) == HIDDEN
    assert show("plugins", ("config", "redis", "password"), SECRET) == HIDDEN
    assert show("plugins", ("config",), {"a": {"password": SECRET}}) == "{a: {password: {vault://redacted-value}}}"
    assert show("certificates", ("cert",), "PEM").startswith("certificate ")
    assert len(show("routes", ("expression",), "x" * 500)) == MAX_SHOWN


def test_differences_show_no_secret() -> None:
    other = orjson.loads(orjson.dumps(DOCUMENT).replace(SECRET.encode(), b"other-secret"))
    found = compare(DOCUMENT, other)
    assert found
    text = "\n".join(map(str, found)) + orjson.dumps([item.to_json() for item in found]).decode() + repr(found)
    assert SECRET not in text
    assert "other-secret" not in text
    assert any(HIDDEN in item.left for item in found)


def test_whole_entities_show_no_secret() -> None:
    text = "\n".join(map(str, compare(DOCUMENT, {}))) + "\n".join(map(str, compare({}, DOCUMENT)))
    assert SECRET not in text
    assert "keyauth credential of consumer bob" in text
