"""cert-manager in the cache: built where it is asked for, there as a whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import kube_assets
import kube_building
import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache in which the control plane is complete."""
    monkeypatch.setenv("KONVERGE_KUBE_ASSETS", str(tmp_path / "cache"))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    for name in kube_building.PACKAGES:
        program = tmp_path / "given" / name
        program.write_text("#!/bin/sh\necho 9.9.9\n")
        program.chmod(0o755)
    return tmp_path / "cache"


def build_fake(target: Path) -> None:
    (target / kube_building.CERT_MANAGER).write_text("program")
    (target / kube_building.CERT_MANAGER_CRDS).write_text("definitions")


def fail_half_way(target: Path) -> None:
    build_fake(target)
    raise kube_building.BuildError("out of disk")


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, list[str]]]:
    code = kube_assets.main([*arguments, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_it_is_built_once_and_only_where_asked_for(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kube_assets, "build_cert_manager", build_fake)
    assert report(capsys)[0] == 0
    assert not kube_building.locate_cert_manager().exists()
    code, told = report(capsys, "--cert-manager")
    place = kube_building.locate_cert_manager()
    assert (code, told["missing"], place.parent) == (0, [], cache)
    assert sorted(path.name for path in place.iterdir()) == [kube_building.CERT_MANAGER, "crds.yaml"]
    monkeypatch.setattr(kube_assets, "build_cert_manager", fail_half_way)
    assert report(capsys, "--cert-manager")[0] == 0, "it is there and not built again"


def test_half_a_build_does_not_count(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kube_assets, "build_cert_manager", fail_half_way)
    code, told = report(capsys, "--cert-manager")
    assert (code, told["missing"]) == (3, [kube_building.CERT_MANAGER])
    assert told["problems"] == [f"{kube_building.CERT_MANAGER}: out of disk"]
    assert "--cert-manager" in told["hint"]
    assert sorted(path.name for path in cache.iterdir()) == [".lock"]


def test_check_builds_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = report(capsys, "--check", "--cert-manager")
    assert (code, told["missing"]) == (3, [kube_building.CERT_MANAGER])
    assert not cache.exists()


def test_another_source_is_another_place(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kube_building.locate_cert_manager()
    copy = tmp_path / "module"
    copy.mkdir()
    for path in kube_building.CERT_MANAGER_MODULE.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(kube_building, "CERT_MANAGER_MODULE", copy)
    assert kube_building.locate_cert_manager() == before
    with (copy / "main.go").open("a") as source:
        source.write("// changed\n")
    assert kube_building.locate_cert_manager() != before


def test_without_go_it_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    code, told = report(capsys, "--cert-manager")
    assert code == 3
    assert told["problems"] == [f"{kube_building.CERT_MANAGER}: the Go toolchain (go) is not on the PATH"]
