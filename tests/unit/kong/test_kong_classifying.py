"""Every recorded answer to a push is read as what it means, and nothing secret stays in what is read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from konverge.kong.classifying import classify, predict_hash
from konverge.kong.outcomes import (
    Busy,
    Exiting,
    IdentityCause,
    IdentityRefused,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unchanged,
    Unexpected,
    Unknown,
)
from konverge.model.condition import ObjectRef

CASES = [json.loads(line) for line in (Path(__file__).parent / "data/answers.jsonl").read_text().splitlines()]
JSON = {"content-type": "application/json; charset=utf-8"}
HTML = {"content-type": "text/html; charset=UTF-8"}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_recorded_answer_is_read_as_what_it_means(case: dict[str, Any]) -> None:
    outcome = classify(case["status"], case["headers"], case["body"].encode(), content=case["content"].encode())
    expect = case["expect"]
    assert type(outcome).__name__ == expect["kind"]
    if isinstance(outcome, Refused):
        found = [[e.entity_type, e.name, [[f.field, f.message] for f in e.errors]] for e in outcome.errors]
        assert found == expect["errors"]
        assert [[e.path, e.message] for e in outcome.document_errors] == expect["document"]
        assert not outcome.truncated
    if isinstance(outcome, (Stored, Unchanged)) and "hash" in expect:
        assert outcome.hash == expect["hash"]
    if isinstance(outcome, TooLarge):
        assert outcome.limit.name == expect["limit"]
    if isinstance(outcome, Busy):
        assert outcome.retry_after == expect["retry_after"]
    if isinstance(outcome, IdentityRefused):
        assert outcome.cause.value == expect["cause"]


def test_kinds_covered_by_recordings() -> None:
    assert {case["expect"]["kind"] for case in CASES} >= {
        "Stored",
        "Unchanged",
        "Refused",
        "Busy",
        "TooLarge",
        "IdentityRefused",
        "Unknown",
        "Unexpected",
    }


def test_a_bad_certificate_is_never_a_bad_configuration() -> None:
    page = b"<html>\r\n<head><title>400 The SSL certificate error</title></head></html>"
    assert classify(400, HTML, page) == IdentityRefused(IdentityCause.UNDIAGNOSED, "The SSL certificate error")
    plain = b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head></html>"
    outcome = classify(400, HTML, plain)
    assert isinstance(outcome, IdentityRefused)
    assert outcome.cause is IdentityCause.NO_TLS


def test_lmdb_full_and_buffer_spill_are_told_from_the_body_limit() -> None:
    full = b'{"message":"Configuration does not fit in LMDB database, consider raising..."}'
    assert classify(413, JSON, full) == TooLarge(SizeLimit.LMDB)
    assert classify(413, HTML, b"<html>") == TooLarge(SizeLimit.BODY)
    spilled = b'{"message":"expected a declarative configuration"}'
    assert classify(400, JSON, spilled, content=b"x" * 20_000) == TooLarge(SizeLimit.BODY_BUFFER)
    assert isinstance(classify(400, JSON, spilled, content=b"{}"), Refused)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("10", 10.0), ("0", 0.0), ("", 10.0), ("soon", 10.0), ("Tue, 24 Nov 2026 02:57:40 GMT", 8.0)],
)
def test_retry_after_in_both_forms(header: str, seconds: float) -> None:
    headers = {**JSON, "retry-after": header, "date": "Tue, 24 Nov 2026 02:57:32 GMT"}
    outcome = classify(429, headers, b'{"message":"Currently loading previous configuration"}')
    assert outcome == Busy(seconds, "Currently loading previous configuration")


def test_answers_that_leave_it_open() -> None:
    assert classify(503, JSON, b'{"message":"Kong currently exiting"}') == Exiting()
    for status in (200, 500, 502, 503, 504):
        assert isinstance(classify(status, JSON, b"{}"), Unknown)
    assert isinstance(classify(404, JSON, b'{"message":"Not found"}'), Unexpected)
    assert isinstance(classify(405, JSON, b"{}"), Unexpected)


def test_stored_empty_configuration_is_predicted_as_zeros() -> None:
    content = b'{"_format_version":"3.0"}'
    assert classify(201, JSON, b"{}", content=content) == Stored("0" * 32)
    assert classify(201, JSON, b'{"routes":{', content=content) == Stored(predict_hash(content))


def test_truncated_refusal_keeps_the_entities_that_came_whole() -> None:
    entries = [
        {
            "entity_type": "route",
            "entity_name": f"r{n}",
            "errors": [{"field": "paths", "message": "bad", "type": "field"}],
        }
        for n in range(3)
    ]
    body = json.dumps({"code": 14, "flattened_errors": entries}).encode()
    outcome = classify(400, JSON, body[:-40], complete=False)
    assert isinstance(outcome, Refused)
    assert outcome.truncated
    assert [error.name for error in outcome.errors] == ["r0", "r1"]


TAGS = ["k8s-name:web", "k8s-namespace:shop", "k8s-kind:Ingress", "k8s-uid:u-1", "k8s-version:v1"]
INGRESS = ObjectRef(kind="Ingress", name="web", namespace="shop", uid="u-1")


def refuse(content: Any, **answer: Any) -> Refused:
    body = json.dumps({"code": 14, "name": "invalid declarative configuration", "fields": {}, **answer})
    outcome = classify(400, JSON, body.encode(), content=json.dumps(content).encode())
    assert isinstance(outcome, Refused)
    return outcome


def test_tags_name_the_object() -> None:
    entry = {"entity_type": "route", "entity_name": "r", "entity_tags": TAGS, "errors": [{"message": "x"}]}
    outcome = refuse({}, flattened_errors=[entry])
    assert outcome.errors[0].object == INGRESS
    assert outcome.objects == (INGRESS,)


def test_untagged_entity_is_traced_to_the_tagged_one_around_it() -> None:
    upstream = {"name": "u", "tags": TAGS, "targets": [{"target": "a:1"}, {"target": "b:99999"}]}
    entry = {
        "entity_type": "target",
        "entity": {"target": "b:99999"},
        "errors": [{"field": "target", "message": "x"}],
    }
    assert refuse({"upstreams": [upstream]}, flattened_errors=[entry]).errors[0].object == INGRESS


def test_ambiguous_entity_is_not_blamed_on_anybody() -> None:
    other = [tag.replace("web", "api") for tag in TAGS]
    services = [{"name": n, "tags": t, "plugins": [{"name": "cors"}]} for n, t in (("a", TAGS), ("b", other))]
    entry = {"entity_type": "plugin", "entity": {"name": "cors"}, "errors": [{"message": "x"}]}
    assert refuse({"services": services}, flattened_errors=[entry]).errors[0].object is None


def test_missing_reference_and_duplicates_are_traced_through_the_document() -> None:
    content = {"routes": [{"name": "r", "tags": TAGS}]}
    missing = refuse(content, fields={"routes": {"r": ["invalid reference 'service: nope'"]}})
    assert missing.document_errors[0].objects == (INGRESS,)
    nested = {"services": [{"name": "s", "routes": [{"name": "r", "tags": TAGS}, {"name": "q"}]}]}
    message = "uniqueness violation: 'routes' entity with name set to 'r' already declared"
    assert refuse(nested, fields={"routes": [None, message]}).objects == (INGRESS,)
    at = refuse(nested, fields={"services": [{"routes": [{"paths": "bad"}]}]})
    assert at.document_errors[0].path == "services[0].routes[0].paths"
    assert at.objects == (INGRESS,)


def test_duplicate_credential_names_both_objects_and_hides_the_key() -> None:
    consumers = [
        {
            "username": name,
            "keyauth_credentials": [{"key": "s3cr3t-key", "tags": [f"k8s-name:{name}", "k8s-kind:Secret"]}],
        }
        for name in ("alice", "bob")
    ]
    message = "uniqueness violation: 'keyauth_credentials' entity with key set to 's3cr3t-key' already declared"
    outcome = refuse({"consumers": consumers}, flattened_errors={}, fields={"keyauth_credentials": [message]})
    assert [o.name for o in outcome.objects] == ["alice", "bob"]
    assert "s3cr3t-key" not in repr(outcome)
    assert "'***'" in outcome.document_errors[0].message


def test_echoed_secrets_never_stay() -> None:
    entity = {"name": "http-log", "config": {"headers": {"authorization": "Bearer abcdef"}, "key": "k1"}}
    errors = [{"field": "config", "message": "invalid value: Bearer abcdef (key 'k1')"}]
    outcome = refuse({}, flattened_errors=[{"entity_type": "plugin", "entity": entity, "errors": errors}])
    assert outcome.errors[0].errors[0].message == "invalid value: *** (key '***')"
    assert b"abcdef" not in pickle.dumps(outcome)


def test_3000_nulls_before_one_error() -> None:
    outcome = refuse({}, fields={"services": [None] * 3000 + [{"routes": [{"protocols": "unknown type: htp"}]}]})
    assert [error.path for error in outcome.document_errors] == ["services[3000].routes[0].protocols"]
