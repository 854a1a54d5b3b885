"""Phases, words and shapes of refused configurations; ids; formats. What is recorded is in tests/contract/kong."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest

from konverge.lab.kong.declarative.compiling import compile_document
from konverge.lab.kong.declarative.failures import Crash, ParseFailure, Refusal, describe, print_lua, to_json
from konverge.lab.kong.declarative.flattening import describe_flattened
from konverge.lab.kong.declarative.identifying import identify
from konverge.lab.kong.declarative.parsing import parse_text
from konverge.lab.kong.schema.registry import load_registry

REGISTRY = load_registry()
NOW = 1_800_000_000.123


def compiled(**sections: Any) -> dict[str, Any]:
    return compile_document({"_format_version": "3.0", **sections}, REGISTRY, NOW)


def refused(**sections: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        compiled(**sections)
    return caught.value


def fields(**sections: Any) -> Any:
    return describe(refused(**sections).errors)["fields"]


def flattened(**sections: Any) -> dict[str, Any]:
    refusal = refused(**sections)
    return describe_flattened(refusal.errors, refusal.document, REGISTRY)


SERVICE = {"name": "s", "url": "http://h"}


def test_ids_follow_names() -> None:
    found = compiled(services=[{"name": "s1", "url": "http://h", "routes": [{"name": "r1", "paths": ["/"]}]}])
    assert list(found["services"]) == ["356ebaf8-b7af-5cba-99a1-f392e34730ab"]
    assert list(found["routes"]) == ["4726a05a-d550-537e-9fc3-a07c7a1188c7"]


def test_ids_of_plugins_and_targets_are_stable_and_distinct() -> None:
    document = {
        "services": [SERVICE | {"plugins": [{"name": "key-auth"}, {"name": "cors"}]}],
        "plugins": [{"name": "key-auth"}],
        "upstreams": [{"name": "u", "targets": [{"target": "a:1"}, {"target": "b:1"}]}],
    }
    one, other = compiled(**document), compiled(**document)
    assert len(one["plugins"]) == 3
    assert one["plugins"].keys() == other["plugins"].keys()
    assert one["targets"].keys() == other["targets"].keys()


def test_credentials_without_id_get_a_random_one() -> None:
    document: dict[str, Any] = {"consumers": [{"username": "a", "keyauth_credentials": [{"key": "k"}]}]}
    assert compiled(**document)["keyauth_credentials"].keys() != compiled(**document)["keyauth_credentials"].keys()


def test_certificates_have_no_key_to_make_an_id_of() -> None:
    schema = REGISTRY.entities["certificates"]
    assert identify(schema, {"cert": "c", "key": "k"}) != identify(schema, {"cert": "c", "key": "k"})


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("nope", "nope"),
        (
            {"id": "11111111-1111-4111-8111-111111111111"},
            '{"id":"11111111-1111-4111-8111-111111111111"}',
        ),
    ],
)
def test_lost_cause_of_a_missing_reference(reference: Any, shown: str) -> None:
    routes = [{"name": "r", "paths": ["/"], "service": reference}]
    message = f"invalid reference 'service: {shown}' (no such entry in 'services')"
    assert fields(routes=routes) == {"routes": {"r": [message]}}
    body = flattened(routes=routes)
    assert (body["flattened_errors"], body["fields"]) == ({}, {})


def test_references_are_resolved_by_name_and_id() -> None:
    found = compiled(services=[SERVICE], routes=[{"name": "r", "paths": ["/"], "service": "s"}])
    (service,) = found["services"]
    (route,) = found["routes"].values()
    assert route["service"] == {"id": service}


def test_phases_hide_each_other() -> None:
    duplicate = [{"username": "a"}, {"username": "a"}]
    lost = [{"name": "r", "paths": ["/"], "service": "nope"}]
    assert list(fields(services=[{"name": "x"}], consumers=duplicate, routes=lost)) == ["services"]
    assert list(fields(consumers=duplicate, routes=lost)) == ["consumers"]
    assert list(fields(routes=lost)) == ["routes"]


def test_custom_ids_are_unique_and_keyed_by_name() -> None:
    found = fields(consumers=[{"username": "a", "custom_id": "1"}, {"username": "b", "custom_id": "1"}])
    message = "uniqueness violation: 'consumers' entity with custom_id set to '1' already declared"
    assert found == {"consumers": {"b": {"custom_id": message}}}


def test_flattened_error_names_entity_id_and_tags() -> None:
    identity = "11111111-1111-4111-8111-111111111111"
    body = flattened(services=[{"id": identity, "name": "x", "tags": ["t"], "protocol": "nope", "host": "h"}])
    (entry,) = body["flattened_errors"]
    assert entry["entity_id"] == identity
    assert entry["entity_name"] == "x"
    assert entry["entity_tags"] == ["t"]
    expected = "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp"
    assert entry["errors"] == [{"field": "protocol", "type": "field", "message": expected}]


def test_nested_entities_are_not_repeated_in_their_parent() -> None:
    body = flattened(services=[{"name": "x", "routes": [{"name": "r"}]}])
    assert [(e["entity_type"], e["entity"]) for e in body["flattened_errors"]] == [
        ("route", {"name": "r"}),
        ("service", {"name": "x"}),
    ]


def test_unknown_sections_stay_in_fields() -> None:
    body = flattened(abnormal=1, services=[{"name": "x"}])
    assert body["fields"] == {"abnormal": "unknown field"}
    assert body["message"] == 'declarative config is invalid: {abnormal="unknown field"}'


def test_consumer_groups_need_enterprise() -> None:
    assert fields(consumer_groups=[{"name": "g"}]) == {"consumer_groups": "unknown field"}
    found = compile_document(
        {"_format_version": "3.0", "consumer_groups": [{"name": "g"}]}, load_registry(enterprise=True), NOW
    )
    assert len(found["consumer_groups"]) == 1


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            {"protocols": ["http"]},
            "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'",
        ),
        (
            {"protocols": ["grpcs"], "strip_path": False},
            "must set one of 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'grpcs'",
        ),
        (
            {"protocols": ["tls"]},
            "must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp', 'tls' or 'udp'",
        ),
    ],
)
def test_routes_need_something_to_match(route: dict[str, Any], message: str) -> None:
    assert fields(services=[SERVICE | {"routes": [route]}]) == {"services": [{"routes": [{"@entity": [message]}]}]}


def test_mixed_protocol_families_are_refused() -> None:
    found = fields(services=[SERVICE | {"routes": [{"protocols": ["http", "tcp"], "paths": ["/"]}]}])
    assert found["services"][0]["routes"][0]["protocols"] == "these sets are mutually exclusive: ('http'), ('tcp')"


def test_url_is_split_and_what_is_given_wins() -> None:
    found = compiled(services=[{"name": "s", "url": "https://example.com/base", "port": 8443}])
    (service,) = found["services"].values()
    assert (service["protocol"], service["host"], service["port"], service["path"]) == (
        "https",
        "example.com",
        8443,
        "/base",
    )


def test_timestamps() -> None:
    found = compiled(
        services=[SERVICE | {"created_at": 5, "updated_at": 6}],
        upstreams=[{"name": "u", "targets": [{"target": "a:1"}]}],
    )
    (service,) = found["services"].values()
    (target,) = found["targets"].values()
    assert (service["created_at"], service["updated_at"]) == (5, 1_800_000_000)
    assert target["created_at"] == 1_800_000_000.123


def test_basic_auth_passwords_are_hashed_unless_told_otherwise() -> None:
    consumers = [{"username": "a", "basicauth_credentials": [{"username": "u", "password": "p"}]}]
    (hashed,) = compiled(consumers=consumers)["basicauth_credentials"].values()
    (plain,) = compiled(consumers=consumers, _transform=False)["basicauth_credentials"].values()
    assert len(hashed["password"]) == 40
    assert plain["password"] == "p"


@pytest.mark.parametrize("document", [{"services": [None]}, {"services": [{"routes": [None], "url": "http://h"}]}])
def test_null_among_entities_crashes(document: dict[str, Any]) -> None:
    with pytest.raises(Crash):
        compiled(**document)


def test_list_document_crashes() -> None:
    with pytest.raises(Crash):
        compile_document([{"_format_version": "3.0"}], REGISTRY, NOW)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": [', "1:7: did not find expected node content"),
        (b"a: [1\nb: 2", "1:5: did not find expected ',' or ']'"),
        (b"5", "expected an object"),
        (b"\x00", "0:0: control characters are not allowed"),
    ],
)
def test_unparsable_text_names_line_and_column(text: bytes, message: str) -> None:
    with pytest.raises(ParseFailure) as caught:
        parse_text(text)
    assert str(caught.value) == message


def test_yaml_dates_stay_text() -> None:
    assert parse_text(b"a: 2024-01-02\nb: 1.5\nc: yes") == {"a": "2024-01-02", "b": 1.5, "c": True}


def test_lua_printing() -> None:
    errors = {"b": {1: {"@entity": {0: 'say "x"'}, "end": "e"}}, "a": {0: "p", 2: "q"}}
    assert print_lua(errors) == '{a={"p",[3]="q"},b={[2]={["@entity"]={"say \\"x\\""},["end"]="e"}}}'
    assert to_json(errors) == {"b": [None, {"@entity": ['say "x"'], "end": "e"}], "a": ["p", None, "q"]}


SAMPLE = {
    "_format_version": "3.0",
    "services": [
        {
            "name": "s",
            "url": "http://h",
            "routes": [{"name": "r", "paths": ["/a"], "headers": {"x": ["1"]}, "protocols": ["http"]}],
            "plugins": [{"name": "rate-limiting", "config": {"minute": 1}}],
        }
    ],
    "upstreams": [{"name": "u", "targets": [{"target": "a:1"}], "healthchecks": {"active": {"timeout": 1}}}],
    "consumers": [{"username": "a", "acls": [{"group": "g"}]}],
    "certificates": [{"cert": "c", "key": "k", "snis": [{"name": "x.example.com"}]}],
}
ODD = (None, 0, -1, 1.5, "", "x", True, [], {}, ["x"], {"x": 1}, [None], [{}], "~(", {"id": None})


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += [(value, key), *_places(item)]
    return found


def test_odd_values_anywhere_are_refused_and_never_break() -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    source = random.Random(seed)
    outcomes = set()
    for _ in range(1500):
        document = json.loads(json.dumps(SAMPLE))
        for _ in range(source.randint(1, 3)):
            owner, key = source.choice(_places(document))
            owner[key] = copy.deepcopy(source.choice(ODD))
        try:
            compile_document(document, REGISTRY, NOW)
            outcomes.add("taken")
        except Refusal as refusal:
            describe(refusal.errors)
            describe_flattened(refusal.errors, refusal.document, REGISTRY)
            outcomes.add("refused")
        except Crash:
            outcomes.add("crash")
    assert {"refused", "crash"} <= outcomes
