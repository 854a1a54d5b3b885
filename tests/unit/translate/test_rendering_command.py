"""``konverge render``, ``konverge diff`` on files, ``konverge explain``, and how YAML is read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from made_objects import (
    consumer,
    credential,
    ingress,
    konghq,
    make,
    path,
    plugin,
    secret,
    service,
    slice_of,
)
from typer.testing import CliRunner

from konverge.cli.main import app
from konverge.cli.manifests import dump_yaml, list_objects, parse_text, parse_yaml, read_scalar
from konverge.errors import UsageError
from konverge.translate import ObjectRef, Translator, render
from konverge.translate.explaining import MADE, SHAPED, explain_entity, explain_object

OBJECTS = [service(uid="u"), ingress(), service("ok"), ingress("fine", path(svc="ok"))]


def run(*arguments: str, stdin: bytes | None = None) -> Any:
    return CliRunner().invoke(app, list(arguments), input=stdin)


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    target = tmp_path / "manifests"
    (target / "more").mkdir(parents=True)
    (target / "one.yaml").write_text(dump_yaml(OBJECTS[0]) + "---\n" + dump_yaml(OBJECTS[1]) + "---\n")
    (target / "more" / "two.json").write_bytes(
        orjson.dumps({"kind": "List", "apiVersion": "v1", "items": OBJECTS[2:]})
    )
    (target / "readme.txt").write_text("[ no yaml")
    return target


def test_render_of_a_directory_prints_the_document_only(manifests: Path) -> None:
    result = run("render", "-f", str(manifests))
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == render(OBJECTS).document
    as_json = run("render", "-f", str(manifests), "-o", "json")
    assert orjson.loads(as_json.stdout) == render(OBJECTS).document


def test_render_reads_standard_input_and_typed_lists() -> None:
    items = [
        {key: value for key, value in item.items() if key not in ("kind", "apiVersion")} for item in OBJECTS[::2]
    ]
    typed = {"apiVersion": "v1", "kind": "ServiceList", "items": items}
    content = orjson.dumps(typed) + b"\n---\n" + orjson.dumps(OBJECTS[1])
    result = run("render", "-f", "-", stdin=content)
    assert yaml.safe_load(result.stdout) == render(OBJECTS[:3]).document


def test_problems_go_to_standard_error_and_to_a_file(tmp_path: Path) -> None:
    source, target = tmp_path / "in.yaml", tmp_path / "problems.json"
    source.write_text(dump_yaml(ingress()))
    result = run("render", "-f", str(source), "--problems", str(target))
    assert result.exit_code == 0
    assert "BackendNotFound" in result.stderr
    assert "BackendNotFound" not in result.stdout
    (problem,) = orjson.loads(target.read_bytes())
    assert problem["object"] == {
        "kind": "Ingress",
        "namespace": "ns",
        "name": "ing",
        "uid": "",
        "apiVersion": "networking.k8s.io/v1",
    }
    assert (problem["reason"], problem["hint"]) == (
        "BackendNotFound",
        "docs/reference/translation/problems.md#backend-not-found",
    )


def test_render_with_features_and_classes(tmp_path: Path) -> None:
    source = tmp_path / "in.yaml"
    source.write_bytes(b"\n---\n".join(orjson.dumps(value) for value in OBJECTS))
    result = run("render", "-f", str(source), "--feature", "ExpressionRoutes=true", "-o", "json")
    route = orjson.loads(result.stdout)["services"][0]["routes"][0]
    assert route["expression"] == 'http.path ^= "/"'
    other = run("render", "-f", str(source), "--ingress-class", "other", "-o", "json")
    assert orjson.loads(other.stdout)["upstreams"] == [{"name": "kong"}]


def test_render_of_the_fallback_configuration(manifests: Path) -> None:
    result = run("render", "-f", str(manifests), "--broken", "service/ns/svc", "-o", "json")
    assert orjson.loads(result.stdout) == render(OBJECTS[2:]).document
    assert "ExcludedByFallback" in result.stderr
    unknown = run("render", "-f", str(manifests), "--broken", "IngressClass//kong", "-o", "json")
    assert orjson.loads(unknown.stdout) == render([]).document


@pytest.mark.parametrize(
    "arguments",
    [
        ["render"],
        ["render", "-f", "x", "--from-cluster"],
        ["render", "-f", "does-not-exist"],
        ["render", "-f", "-", "--feature", "Nonsense=true"],
        ["render", "-f", "-", "--feature", "ExpressionRoutes"],
        ["render", "-f", "-", "--broken", "Service/ns"],
        ["diff", "does-not-exist", "-"],
        ["diff", "revision:x", "-"],
        ["diff", "revision:1", "-"],
        ["explain", "nonsense:x", "-f", "-"],
        ["explain", "Service", "-f", "-"],
    ],
)
def test_wrong_words_are_explained(arguments: list[str]) -> None:
    result = run(*arguments, stdin=b"")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "see docs/" in result.stderr


def test_diff_of_files(tmp_path: Path) -> None:
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(dump_yaml(render(OBJECTS).document))
    other.write_bytes(b"\n---\n".join(orjson.dumps(value) for value in OBJECTS))
    assert run("diff", str(one), str(other)).exit_code == 0
    other.write_bytes(b"\n---\n".join(orjson.dumps(value) for value in OBJECTS[:2]))
    result = run("diff", str(one), str(other))
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        "- route ns.fine.ok..80",
        "- service ns.ok.80",
        "- upstream ok.ns.80.svc",
        "3 entities differ",
    ]


def test_diff_shows_no_secret(tmp_path: Path) -> None:
    files = []
    for number, key in enumerate(("hush-one", "hush-two")):
        file = tmp_path / f"{number}.yaml"
        values = [consumer("bob", credentials=["sec"]), credential("sec", "hmac-auth", username="u", secret=key)]
        file.write_bytes(b"\n---\n".join(orjson.dumps(value) for value in values))
        files.append(str(file))
    for output in ("table", "json"):
        result = run("diff", *files, "-o", output)
        assert result.exit_code == 2
        assert "hush" not in result.output
        assert "secret" in result.stdout


def explained() -> Translator:
    translator = Translator()
    values = [
        service(annotations=konghq(plugins="plug")),
        slice_of("svc", "10.0.0.1"),
        ingress(),
        plugin(configFrom={"secretKeyRef": {"name": "conf", "key": "c"}}),
        secret("conf", values={"c": "a: 1"}),
        consumer("bob", credentials=["key"]),
        credential("key", "key-auth", key="k"),
        make(
            "KongVault",
            "v",
            annotations={"kubernetes.io/ingress.class": "kong"},
            spec={"backend": "env", "prefix": "p"},
        ),
    ]
    translator.replace(values)
    translator.render()
    return translator


def links(kind: str, name: str, namespace: str = "ns") -> dict[str, str]:
    found = explain_object(explained(), (kind, namespace, name))
    return {f"{link.entity.kind} {link.entity.name}": link.relation for link in found}


ROUTE, SERVICE, UPSTREAM = "routes ns.ing.svc..80", "services ns.svc.80", "upstreams svc.ns.80.svc"
PLUGIN = "plugins cors on service ns.svc.80"


def test_explain_an_object() -> None:
    assert links("Ingress", "ing") == {ROUTE: MADE, SERVICE: MADE, UPSTREAM: MADE}
    assert links("Service", "svc") == {ROUTE: SHAPED, SERVICE: MADE, UPSTREAM: MADE}
    assert links("EndpointSlice", "svc-1") == {ROUTE: SHAPED, SERVICE: SHAPED, UPSTREAM: SHAPED}
    assert links("KongPlugin", "plug") == {PLUGIN: MADE}
    assert links("Secret", "conf") == {PLUGIN: SHAPED}
    assert links("Secret", "key") == {"consumers bob": SHAPED}
    assert links("KongVault", "v", "") == {"vaults p": MADE}
    assert links("Secret", "missing") == {}


def test_explain_an_entity() -> None:
    translator = explained()
    found = {str(link.object_ref): link.relation for link in explain_entity(translator, "routes", "ns.ing.svc..80")}
    assert found == {"Ingress/ns/ing": MADE, "Service/ns/svc": SHAPED, "EndpointSlice/ns/svc-1": SHAPED}
    (link,) = explain_entity(translator, "vaults", "p")
    assert link.object_ref == ObjectRef("KongVault", "", "v", "", "configuration.konghq.com/v1alpha1")


def test_the_explain_command(manifests: Path) -> None:
    result = run("explain", "Ingress/ns/ing", "-f", str(manifests))
    assert result.exit_code == 0
    assert "  routes ns.ing.svc..80\n" in result.stdout
    result = run("explain", "route:ns.ing.svc..80", "-f", str(manifests), "-o", "json")
    assert {link["object"] for link in orjson.loads(result.stdout)["links"]} == {"Ingress/ns/ing", "Service/ns/svc"}
    assert run("explain", "Ingress/ns/none", "-f", str(manifests)).exit_code == 1
    assert run("explain", "route:none", "-f", str(manifests)).exit_code == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b11", 3),
        ("-0x1", -1),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("", None),
        ("0x", "0x"),
        ("08", 8.0),
        ("1.2.3", "1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
        ("+", "+"),
        (".", "."),
        (".inf", float("inf")),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: Any) -> None:
    found = read_scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_and_quoted_scalars_too() -> None:
    assert parse_yaml("1: a\ntrue: '5'\n~: \"x\"", "x") == [{"1": "a", "true": "5", "null": "x"}]


def test_merge_keys() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}", "x") == [
        {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}
    ]


@pytest.mark.parametrize(
    "text", ["y", "n", "1e3", "010", "0o7", "12:30", "=", "<<", "~", "null", "", "- a", "a: b", "x #", "é", "\ta"]
)
def test_texts_survive_writing_and_reading(text: str) -> None:
    written = dump_yaml({"a": [text], text: 1})
    assert parse_yaml(written, "x") == [{"a": [text], text: 1}]
    assert yaml.safe_load(written)["a"] == [text]


def test_an_error_names_the_file_and_the_line() -> None:
    with pytest.raises(UsageError, match=r"in\.yaml cannot be read in line 3"):
        parse_text(b"a: 1\nb: [", "in.yaml")


def test_lists_that_are_none() -> None:
    assert list_objects([None, {"kind": "IngressList", "items": 5}, [1, 2]]) == [
        {"kind": "IngressList", "items": 5},
        1,
        2,
    ]
