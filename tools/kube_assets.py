"""Fills the cache with etcd, kube-apiserver and kube-controller-manager (``make kube-assets``).

What the directory in KUBEBUILDER_ASSETS has is used as it is. The rest comes from envtest's bundles where they
can be downloaded, else it is built by the Go toolchain from the published modules. The stamp of the cache is
written last, so an interrupted build never looks complete. cert-manager is built where --cert-manager asks for it.

Exit codes: 0 complete, 3 something is missing (the text or JSON says what, and why it could not be had).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kube_building import (
    CERT_MANAGER,
    MODULE,
    BuildError,
    build_cert_manager,
    build_programs,
    fetch_envtest,
    locate_cert_manager,
    read_cert_manager_version,
    write_module,
)

from konverge.lab.realplane.assets import (
    CACHE_VARIABLE,
    ETCD,
    KUBEBUILDER_VARIABLE,
    KUBERNETES_VERSION,
    OLDEST_ETCD,
    STAMP,
    Assets,
    ask_version,
    list_cached,
    locate_cache,
    look_up_assets,
)

EXIT_MISSING = 3
Way = Callable[[str, Path, Sequence[str]], dict[str, Path]]
WAYS: dict[str, Way] = {"envtest": fetch_envtest, "go": build_programs}
LEFTOVER = ".partial-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parse(arguments)
    if options.write_module:
        write_module(options.version, MODULE)
        return 0
    failures: dict[str, str] = {}
    if not options.check:
        ways = [options.way] if options.way else list(WAYS)
        failures = fill_cache(options.version, ways)
        if options.cert_manager:
            failures |= fill_cert_manager()
    report = describe(look_up_assets(options.version), options.version, failures)
    if options.cert_manager:
        report = with_cert_manager(report, failures)
    print(json.dumps(report, indent=2) if options.output == "json" else render(report))
    return 0 if report["complete"] else EXIT_MISSING


def fill_cache(version: str, ways: Sequence[str]) -> dict[str, str]:
    """Get what is missing, one way after the other; return why each failed way failed."""
    failures: dict[str, str] = {}
    cache = locate_cache(version)
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache), _workspace(cache) as workspace:
        for way in ways:
            missing = look_up_assets(version).missing
            if not missing:
                break
            try:
                publish(cache, version, way, WAYS[way](version, workspace, missing))
            except BuildError as error:
                failures[way] = str(error)
    return failures


def fill_cert_manager() -> dict[str, str]:
    """Build cert-manager where this version of it is not there; return why it failed. It gets its name complete."""
    target = locate_cert_manager()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _lock(target.parent), _workspace(target.parent) as workspace:
        if target.is_dir():
            return {}
        made = workspace / target.name
        made.mkdir()
        try:
            build_cert_manager(made)
        except BuildError as error:
            return {CERT_MANAGER: str(error)}
        made.rename(target)
    return {}


def publish(cache: Path, version: str, way: str, programs: dict[str, Path]) -> None:
    """Move programs into the cache; the stamp goes first and comes back last."""
    if not programs:
        return
    kept = list_cached(cache)
    (cache / STAMP).unlink(missing_ok=True)
    for name, path in programs.items():
        path.chmod(0o755)
        os.replace(path, cache / name)
    sizes = {name: (cache / name).stat().st_size for name in {**kept, **programs}}
    stamp = cache / f"{LEFTOVER}{STAMP}"
    stamp.write_text(json.dumps({"version": version, "source": way, "sizes": sizes}, indent=2) + "\n")
    os.replace(stamp, cache / STAMP)


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    """Let one process at a time fill a cache; the lock goes with the process."""
    with (cache / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def _workspace(cache: Path) -> Iterator[Path]:
    """Give a directory on the same file system, and sweep what a killed run left behind."""
    for leftover in cache.glob(f"{LEFTOVER}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    with tempfile.TemporaryDirectory(prefix=LEFTOVER, dir=cache) as directory:
        yield Path(directory)


def describe(assets: Assets, version: str, failures: dict[str, str]) -> dict[str, object]:
    """Return the report: where each program is, its version, what is missing and why."""
    found = {
        name: {"path": str(path), "version": ".".join(map(str, ask_version(path)))}
        for name, path in assets.programs.items()
    }
    too_old = ETCD in found and ask_version(assets.programs[ETCD]) < OLDEST_ETCD
    problems = [f"{way}: {why}" for way, why in failures.items()] if assets.missing else []
    if too_old:
        oldest = ".".join(map(str, OLDEST_ETCD))
        problems.append(f"etcd {found[ETCD]['version']} is older than {oldest}: sendInitialEvents would fail")
    return {
        "complete": not assets.missing and not too_old,
        "kubernetes": version,
        "directory": str(assets.directory),
        "source": assets.source,
        "programs": found,
        "missing": list(assets.missing),
        "problems": problems,
        "hint": _advise([*assets.missing, ETCD] if too_old else assets.missing),
    }


def with_cert_manager(report: dict[str, object], failures: dict[str, str]) -> dict[str, object]:
    """Return the report with what there is of cert-manager, which has to be there to be complete."""
    place = locate_cert_manager()
    if place.is_dir():
        entry = {"path": str(place / CERT_MANAGER), "version": read_cert_manager_version()}
        return {**report, "programs": {**_table(report, "programs"), CERT_MANAGER: entry}}
    why = [f"{CERT_MANAGER}: {failures[CERT_MANAGER]}"] if CERT_MANAGER in failures else []
    return {
        **report,
        "complete": False,
        "missing": [*_listed(report, "missing"), CERT_MANAGER],
        "problems": [*_listed(report, "problems"), *why],
        "hint": report["hint"] or "Run `python tools/kube_assets.py --cert-manager` (needs Go 1.26).",
    }


def _advise(wanted: Sequence[str]) -> str:
    if not wanted:
        return ""
    return (
        "Run `make kube-assets` (needs Go 1.26 and the module proxy, or setup-envtest and its downloads), "
        f"or set {KUBEBUILDER_VARIABLE} to a directory with {', '.join(wanted)}, "
        f"or {CACHE_VARIABLE} to a filled cache."
    )


def render(report: dict[str, object]) -> str:
    """Return the report as text for people."""
    programs = _table(report, "programs")
    lines = [f"{name:<24} {entry['version']:<9} {entry['path']}" for name, entry in programs.items()]
    lines += [f"{name:<24} missing" for name in _listed(report, "missing")]
    lines += [f"problem: {problem}" for problem in _listed(report, "problems")]
    if report["hint"]:
        lines.append(str(report["hint"]))
    return "\n".join(lines)


def _listed(report: dict[str, object], key: str) -> list[str]:
    value = report[key]
    assert isinstance(value, list)
    return value


def _table(report: dict[str, object], key: str) -> dict[str, dict[str, str]]:
    value = report[key]
    assert isinstance(value, dict)
    return value


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only report, fetch and build nothing")
    parser.add_argument("--version", default=KUBERNETES_VERSION, help="Kubernetes version (default %(default)s)")
    parser.add_argument("--way", choices=list(WAYS), help="only this way (default: envtest, then go)")
    parser.add_argument("--cert-manager", action="store_true", help="cert-manager's controller and CRDs as well")
    parser.add_argument("--write-module", action="store_true", help="renew tools/kube/go.mod for --version")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
