"""Where the three programs of a real control plane are: etcd, kube-apiserver, kube-controller-manager.

``KUBEBUILDER_ASSETS`` is envtest's convention: a directory that holds them. Without it they come from the
cache that ``make kube-assets`` fills. A directory of the cache counts only with its stamp, written last.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from konverge.errors import CheckRefused

ETCD = "etcd"
API_SERVER = "kube-apiserver"
CONTROLLERS = "kube-controller-manager"
PROGRAMS = (ETCD, API_SERVER, CONTROLLERS)
STAMP = "stamp.json"
"""Written last into a directory of the cache: version, source and the size in bytes of each program."""
KUBERNETES_VERSION = "1.36.2"
"""The version that the cache is filled with where nobody asks for another one."""
OLDEST_ETCD = (3, 5, 13)
"""Older ones cannot report watch progress, without which ``sendInitialEvents`` fails (KEP-3157)."""
KUBEBUILDER_VARIABLE = "KUBEBUILDER_ASSETS"
CACHE_VARIABLE = "KONVERGE_KUBE_ASSETS"


@dataclass(frozen=True, slots=True)
class Assets:
    """The three programs, and where they were found: KUBEBUILDER_ASSETS or the cache."""

    directory: Path
    programs: Mapping[str, Path]
    source: str

    @property
    def missing(self) -> tuple[str, ...]:
        """The names of the programs that are not there."""
        return tuple(name for name in PROGRAMS if name not in self.programs)


def locate_cache(version: str = KUBERNETES_VERSION, environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory that the programs of ``version`` are cached in, whether it exists or not."""
    env = os.environ if environ is None else environ
    if override := env.get(CACHE_VARIABLE):
        return Path(override)
    home = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "konverge" / "kube-assets" / version


def list_programs(directory: Path) -> dict[str, Path]:
    """Return the programs of a directory that can be started."""
    found = {name: directory / name for name in PROGRAMS}
    return {name: path for name, path in found.items() if path.is_file() and os.access(path, os.X_OK)}


def read_stamp(directory: Path) -> dict[str, Any] | None:
    """Return the stamp of a cache directory; None where it is absent or a program is not as stamped."""
    try:
        stamp = json.loads((directory / STAMP).read_text())
        sizes = {name: int(size) for name, size in stamp["sizes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    programs = list_programs(directory)
    intact = all(name in programs and programs[name].stat().st_size == size for name, size in sizes.items())
    return dict(stamp) if intact else None


def list_cached(directory: Path) -> dict[str, Path]:
    """Return the programs of a cache directory that its stamp vouches for."""
    stamp = read_stamp(directory)
    sizes = stamp["sizes"] if stamp else {}
    return {name: path for name, path in list_programs(directory).items() if name in sizes}


def look_up_assets(version: str = KUBERNETES_VERSION, environ: Mapping[str, str] | None = None) -> Assets:
    """Return what there is, complete or not: KUBEBUILDER_ASSETS first, what it lacks from the cache."""
    env = os.environ if environ is None else environ
    cache = locate_cache(version, env)
    cached = list_cached(cache)
    named = env.get(KUBEBUILDER_VARIABLE)
    if not named:
        return Assets(cache, cached, "cache")
    given = list_programs(Path(named))
    return Assets(Path(named), {**cached, **given}, KUBEBUILDER_VARIABLE)


def require_assets(version: str = KUBERNETES_VERSION, environ: Mapping[str, str] | None = None) -> Assets:
    """Return complete assets; CheckRefused with reason KubeAssetsMissing names what is not there."""
    assets = look_up_assets(version, environ)
    if assets.missing:
        raise CheckRefused(
            f"The real control plane needs {', '.join(assets.missing)}, missing in {assets.directory}:"
            " run `make kube-assets`",
            reason="KubeAssetsMissing",
            hint="howto/real-control-plane.md#get-the-programs",
        )
    return assets


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first x.y.z of a text as numbers; an empty tuple where there is none."""
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else ()


def ask_version(program: Path) -> tuple[int, ...]:
    """Return the version that ``program --version`` prints; empty where it fails. Blocks up to 20 s."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_version(done.stdout + done.stderr)
