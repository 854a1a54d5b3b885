"""Whole documents: our own cases, and the ingress controller's golden suite where its folder is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from konverge.cli.main import app
from konverge.cli.manifests import dump_yaml, list_objects, parse_yaml, read_documents
from konverge.kong.declarative import digest, serialise
from konverge.translate import Rendered, Settings, render, render_fallback

REPOSITORY = Path(__file__).parents[2]
OWN = Path(__file__).parent / "cases"
SUITE = Path(os.environ.get("KONVERGE_GOLDEN_DIR", REPOSITORY.parent / "shared" / "kic-golden"))
BROKEN = "test.konghq.com/broken"


def find_cases(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*_golden.yaml")) if folder.is_dir() else []


def name_case(path: Path) -> str:
    return f"{path.parent.name}/{path.name.removesuffix('_golden.yaml')}"


def load_features(golden: Path) -> dict[str, bool]:
    settings = golden.with_name(golden.name.replace("_golden.yaml", "_settings.yaml"))
    return yaml.safe_load(settings.read_text())["feature_flags"] if settings.exists() else {}


def find_broken(objects: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [
        (value["kind"], value["metadata"].get("namespace", ""), value["metadata"]["name"])
        for value in objects
        if (value["metadata"].get("annotations") or {}).get(BROKEN) == "true"
    ]


def render_case(golden: Path) -> Rendered:
    objects = list_objects(read_documents(str(golden.with_name("in.yaml"))))
    settings = Settings(features=load_features(golden))
    broken = find_broken(objects)
    return render_fallback(objects, broken, settings) if broken else render(objects, settings)


def tree(value: Any) -> Any:
    """Return a value in which 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return {key: tree(item) for key, item in value.items()}
    if isinstance(value, list):
        return [tree(item) for item in value]
    return (type(value).__name__, value)


CASES = find_cases(OWN) + find_cases(SUITE)


def test_there_are_cases_of_our_own() -> None:
    assert len(find_cases(OWN)) >= 6


@pytest.mark.parametrize("golden", CASES, ids=name_case)
def test_the_document_is_the_golden_one(golden: Path) -> None:
    rendered = render_case(golden)
    assert tree(rendered.document) == tree(yaml.safe_load(golden.read_text()))
    assert rendered.content == serialise(rendered.document)
    assert rendered.hash == digest(rendered.content)


@pytest.mark.parametrize("golden", CASES, ids=name_case)
def test_the_printed_document_reads_back_as_the_same_tree(golden: Path) -> None:
    document = render_case(golden).document
    text = dump_yaml(document)
    assert tree(yaml.safe_load(text)) == tree(document)
    assert tree(parse_yaml(text, "the document")) == tree([document])


@pytest.mark.parametrize("golden", CASES[:: max(1, len(CASES) // 8)], ids=name_case)
def test_the_command_prints_the_document_and_nothing_else(golden: Path) -> None:
    source = golden.with_name("in.yaml")
    arguments = ["render", "-f", str(source), "-o", "yaml"]
    for name, value in load_features(golden).items():
        arguments += ["--feature", f"{name}={str(value).lower()}"]
    for broken in find_broken(list_objects(read_documents(str(source)))):
        arguments += ["--broken", "/".join(broken)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert tree(yaml.safe_load(result.stdout)) == tree(yaml.safe_load(golden.read_text()))


@pytest.mark.parametrize("golden", CASES[:3], ids=name_case)
def test_a_changed_golden_document_is_noticed(golden: Path) -> None:
    wanted = yaml.safe_load(golden.read_text())
    kind = next(name for name in wanted if name != "_format_version")
    wanted[kind] = [{**wanted[kind][0], "tags": ["changed"]}, *wanted[kind][1:]]
    assert tree(render_case(golden).document) != tree(wanted)
