"""The cache of the programs: what counts as there, and how it is filled."""

from __future__ import annotations

import json
from pathlib import Path

import kube_assets
import kube_building
import pytest

from konverge.errors import CheckRefused
from konverge.lab.realplane.assets import (
    API_SERVER,
    CONTROLLERS,
    ETCD,
    PROGRAMS,
    list_cached,
    look_up_assets,
    require_assets,
)

VERSION = "1.36.2"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KONVERGE_KUBE_ASSETS", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path / "cache"


def write_program(directory: Path, name: str, version: str = "9.9.9") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def build_fakes(version: str, target: Path, programs: tuple[str, ...]) -> dict[str, Path]:
    """A way that always works."""
    return {name: write_program(target, name) for name in programs}


def test_filled_cache_is_complete(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(kube_assets.WAYS, "go", build_fakes)
    assert kube_assets.main(["--way", "go", "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["complete"]
    assert report["programs"][ETCD]["path"] == str(cache / ETCD)
    assert sorted(path.name for path in cache.iterdir()) == sorted([".lock", "stamp.json", *PROGRAMS])


def test_programs_without_stamp_do_not_count(cache: Path) -> None:
    for name in PROGRAMS:
        write_program(cache, name)
    assert look_up_assets().missing == PROGRAMS


def test_truncated_program_does_not_count(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kube_assets.WAYS, "go", build_fakes)
    kube_assets.fill_cache(VERSION, ["go"])
    assert not look_up_assets().missing
    (cache / API_SERVER).write_text("#!/bin/sh\n")
    assert look_up_assets().missing == PROGRAMS


def test_interrupted_fill_is_swept_and_done_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(version: str, target: Path, programs: tuple[str, ...]) -> dict[str, Path]:
        write_program(target, ETCD)
        raise KeyboardInterrupt

    monkeypatch.setitem(kube_assets.WAYS, "go", break_off)
    with pytest.raises(KeyboardInterrupt):
        kube_assets.fill_cache(VERSION, ["go"])
    assert look_up_assets().missing == PROGRAMS
    write_program(cache / ".partial-killed", ETCD)
    monkeypatch.setitem(kube_assets.WAYS, "go", build_fakes)
    kube_assets.fill_cache(VERSION, ["go"])
    assert not look_up_assets().missing
    assert not list(cache.glob(".partial-*"))


def test_only_what_a_bundle_lacks_is_built(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle"
    for name in (ETCD, API_SERVER):
        write_program(bundle, name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bundle))
    monkeypatch.setitem(kube_assets.WAYS, "go", build_fakes)
    kube_assets.fill_cache(VERSION, ["go"])
    assert list(list_cached(cache)) == [CONTROLLERS]
    assets = require_assets()
    assert assets.programs[ETCD] == bundle / ETCD
    assert assets.programs[CONTROLLERS] == cache / CONTROLLERS


def test_second_way_only_gets_what_the_first_left(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_two(version: str, target: Path, programs: tuple[str, ...]) -> dict[str, Path]:
        return {name: write_program(target, name) for name in (ETCD, API_SERVER)}

    asked: list[tuple[str, ...]] = []

    def build_rest(version: str, target: Path, programs: tuple[str, ...]) -> dict[str, Path]:
        asked.append(programs)
        return build_fakes(version, target, programs)

    monkeypatch.setitem(kube_assets.WAYS, "envtest", fetch_two)
    monkeypatch.setitem(kube_assets.WAYS, "go", build_rest)
    assert kube_assets.fill_cache(VERSION, ["envtest", "go"]) == {}
    assert asked == [(CONTROLLERS,)]


def test_report_says_why_nothing_could_be_had(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert kube_assets.main([]) == 3
    text = capsys.readouterr().out
    assert "neither setup-envtest nor go is on the PATH" in text
    assert "the Go toolchain (go) is not on the PATH" in text
    assert "make kube-assets" in text


def test_old_etcd_is_not_good_enough(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, version in ((ETCD, "3.5.1"), (API_SERVER, VERSION), (CONTROLLERS, VERSION)):
        write_program(tmp_path / "old", name, version)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "old"))
    assert kube_assets.main(["--check"]) == 3
    assert "etcd 3.5.1 is older than 3.5.13" in capsys.readouterr().out


def test_check_touches_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kube_assets.main(["--check"]) == 3
    assert not cache.exists()
    assert capsys.readouterr().out.count("missing") == 3


def test_refusal_names_the_programs(cache: Path) -> None:
    with pytest.raises(CheckRefused, match=r"etcd, kube-apiserver, kube-controller-manager") as caught:
        require_assets()
    assert caught.value.reason == "KubeAssetsMissing"


def test_bundle_of_envtest_is_taken_over(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "1.36.2-linux-amd64"
    for name in (ETCD, API_SERVER):
        write_program(bundle, name)
    script = write_program(tmp_path / "bin", "setup-envtest")
    script.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nprintf %s {bundle}\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    failures = kube_assets.fill_cache(VERSION, ["envtest"])
    assert failures == {}
    assert sorted(list_cached(cache)) == sorted([ETCD, API_SERVER])
    assert (tmp_path / "arguments").read_text().startswith("use 1.36.x -p path --bin-dir ")
    assert look_up_assets().missing == (CONTROLLERS,)


def test_module_replaces_staging_modules() -> None:
    published = (
        "module k8s.io/kubernetes\n\ngo 1.26.0\n\ngodebug default=go1.26\n\n"
        "replace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n"
        "\tk8s.io/client-go => ./staging/src/k8s.io/client-go\n)\n"
    )
    text = kube_building.render_module("1.35.4", published)
    assert "\tk8s.io/api => k8s.io/api v0.35.4\n" in text
    assert "\tk8s.io/client-go => k8s.io/client-go v0.35.4\n" in text
    assert "require k8s.io/kubernetes v1.35.4\n" in text
    with pytest.raises(kube_building.BuildError, match="no staging modules"):
        kube_building.render_module("1.35.4", "module x\n")


def test_committed_module_is_of_the_default_version() -> None:
    text = (kube_building.MODULE / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{VERSION} " in text
    assert text.startswith(kube_building.HEADER)
    for package in kube_building.PACKAGES.values():
        assert package in text
