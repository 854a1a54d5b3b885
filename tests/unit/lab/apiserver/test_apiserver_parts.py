"""Selectors, quantities, spans, JSONPath, CEL, protobuf and tokens by themselves."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes.client
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from konverge.lab.apiserver.cel import CelError, compile_expression
from konverge.lab.apiserver.clock import Clock
from konverge.lab.apiserver.kinds import rank_version
from konverge.lab.apiserver.protobuf import decode_protobuf
from konverge.lab.apiserver.quantities import canonicalize, parse_quantity
from konverge.lab.apiserver.schemas import load_types
from konverge.lab.apiserver.schemas.types import load_document
from konverge.lab.apiserver.selecting import compile_fields, compile_labels
from konverge.lab.apiserver.statuses import StatusError
from konverge.lab.apiserver.tables.columns import show_span
from konverge.lab.apiserver.tables.jsonpath import find_values
from konverge.lab.apiserver.tokens import TokenIssuer

QUICK = settings(deadline=None, max_examples=60, print_blob=True)


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1500Mi", "1500Mi"),
        ("0", "0"),
        ("100k", "100k"),
        ("1e3", "1e3"),
        ("2048", "2048"),
        ("1.5Gi", "1536Mi"),
    ],
)
def test_quantities(given_text: str, shown: str) -> None:
    assert canonicalize(given_text) == shown


@QUICK
@given(st.integers(0, 10**9), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "Gi"]))
def test_canonical_quantities_keep_their_value(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    assert parse_quantity(canonicalize(text)) == parse_quantity(text)
    assert canonicalize(canonicalize(text)) == canonicalize(text)


@pytest.mark.parametrize("text", ["a===b", "a in", "(a)", "a=b=c", "a in (b", "=b"])
def test_selectors_that_make_no_sense(text: str) -> None:
    with pytest.raises(StatusError) as caught:
        compile_labels(text)
    assert caught.value.code == 400


def test_fields_that_cannot_be_selected() -> None:
    with pytest.raises(StatusError):
        compile_fields("spec.nope=1", "pods")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(5, "5s"), (119, "119s"), (125, "2m5s"), (3600, "60m"), (18000, "5h"), (172800, "2d"), (864000, "10d")],
)
def test_spans(seconds: int, shown: str) -> None:
    assert show_span(seconds) == shown


def test_versions_are_ranked() -> None:
    versions = ["v1alpha1", "v1", "v2beta1", "v2", "foo", "v1beta2"]
    assert sorted(versions, key=rank_version) == ["v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo"]


def test_jsonpath() -> None:
    obj = {
        "status": {"conditions": [{"type": "A", "status": "x"}, {"type": "B", "status": "y"}]},
        "metadata": {"labels": {"a.b/c": "d"}},
    }
    assert find_values('.status.conditions[?(@.type=="B")].status', obj) == ["y"]
    assert find_values(".status.conditions[*].type", obj) == ["A", "B"]
    assert find_values(".status.conditions[0].type", obj) == ["A"]
    assert find_values(r".metadata.labels.a\.b/c", obj) == ["d"]
    assert find_values(".nope.at.all", obj) == []


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3 == 7", True),
        ("self.a.size() > 1 && self.a.exists(x, x == 'b')", True),
        ("self.a.all(x, x.startsWith('a'))", False),
        ("has(self.nope) ? self.nope > 1 : true", True),
        ("self.a.map(x, x + '!')", ["a!", "b!"]),
        ("self.a.filter(x, x != 'a')", ["b"]),
        ("self.a.exists_one(x, x == 'a')", True),
        ("'ab'.matches('^a.$')", True),
        ("'b' in self.a", True),
        ("self.m['k'] == 1", True),
        ("!(self.m.k > 1)", True),
        ("-7 / 2 == -3 && -7 % 2 == -1", True),
        ("duration('1h30m') > duration('89m')", True),
        ("isURL('https://a.example/x') && url('https://a.example/x').getHostname() == 'a.example'", True),
        ("isIP('10.0.0.1') && !isIP('nope')", True),
        ("quantity('1Gi').isGreaterThan(quantity('1000Mi'))", True),
        ("type(self.m) == map", True),
        ("string(1) + 'x' == '1x'", True),
        ("self.nope == 1 || true", True),
        (r"r'\d' == '\\d'", True),
    ],
)
def test_expressions(expression: str, value: Any) -> None:
    scope = {"self": {"a": ["a", "b"], "m": {"k": 1}}}
    assert compile_expression(expression).evaluate(scope) == value


@pytest.mark.parametrize("expression", ["", "1 +", "nope(1)", "a.b.c(", "[1, 2", "self.?a"])
def test_expressions_that_do_not_compile(expression: str) -> None:
    with pytest.raises(CelError):
        compile_expression(expression)


@pytest.mark.parametrize("expression", ["self.nope", "1 / 0 == 1", "'a' < 1", "self.a[9] == 'x'", "1 && true"])
def test_expressions_that_fail(expression: str) -> None:
    with pytest.raises(CelError):
        compile_expression(expression).evaluate({"self": {"a": ["a"]}})


def test_protobuf_of_a_secret() -> None:
    """Bytes as client-go encodes a Secret with a name, a label, a type and one entry of data."""

    def field(number: int, value: bytes) -> bytes:
        return bytes([number << 3 | 2, len(value)]) + value

    labels = field(11, field(1, b"l") + field(2, b"v"))
    metadata = field(1, b"s") + field(2, b"") + labels
    secret = field(1, metadata) + field(2, field(1, b"k") + field(2, b"value")) + field(3, b"Opaque")
    raw = b"k8s\x00" + field(1, field(1, b"v1") + field(2, b"Secret")) + field(2, secret)
    assert decode_protobuf(raw) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"l": "v"}},
        "data": {"k": base64.b64encode(b"value").decode()},
        "type": "Opaque",
    }


@QUICK
@given(st.binary(max_size=60))
def test_protobuf_that_is_none(raw: bytes) -> None:
    with pytest.raises(StatusError) as caught:
        decode_protobuf(raw)
    assert caught.value.code == 400


def test_types_agree_with_the_official_models() -> None:
    """Every field that the official package knows for these types is in the table."""
    types = load_types()
    for short, model in (
        ("core.v1.PodSpec", "V1PodSpec"),
        ("core.v1.ServiceSpec", "V1ServiceSpec"),
        ("apps.v1.DeploymentSpec", "V1DeploymentSpec"),
        ("core.v1.Container", "V1Container"),
        ("networking.v1.IngressSpec", "V1IngressSpec"),
        ("discovery.v1.Endpoint", "V1Endpoint"),
    ):
        struct = types[short].struct
        assert struct is not None
        fields = getattr(kubernetes.client, model).model_fields
        newer = {"evictionResponders", "schedulingGroup"}
        known = {info.validation_alias.choices[0] if info.validation_alias else name for name, info in fields.items()}
        assert known - newer <= struct.fields.keys(), short


def test_every_resource_has_its_type() -> None:
    types = load_types()
    document = load_document()
    for resource in document["resources"]:
        name = document["kinds"][f"{resource['group']}/{resource['version']}/{resource['kind']}"]
        assert types[name].struct is not None


ACCOUNT = {"metadata": {"namespace": "n", "name": "a", "uid": "u"}}


def test_tokens_expire_and_cannot_be_forged(tmp_path: Path) -> None:
    clock = Clock()
    issuer = TokenIssuer.load(tmp_path, clock)
    token, expires = issuer.issue(ACCOUNT, 600)
    claims = issuer.verify(token)
    assert claims is not None
    assert (claims.namespace, claims.account, claims.expires) == ("n", "a", expires)
    head, body, signature = token.split(".")
    assert issuer.verify(f"{head}.{body[:-2]}AA.{signature}") is None
    assert issuer.verify("nonsense") is None
    clock.move(601)
    assert issuer.verify(token) is None


def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    token, _ = TokenIssuer.load(tmp_path, Clock()).issue(ACCOUNT, 600)
    assert TokenIssuer.load(tmp_path, Clock()).verify(token) is not None


def test_stopped_clock_stands() -> None:
    clock = Clock()
    clock.stop()
    assert clock.now() == clock.now()
    clock.start()
    clock.move(3600)
    assert clock.now() - datetime.now(UTC) > timedelta(minutes=59)
