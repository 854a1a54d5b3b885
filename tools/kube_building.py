"""Ways to get the programs of a real control plane: envtest's bundles, else the Go toolchain.

Both use published things only: setup-envtest downloads what controller-tools released; the Go toolchain fetches
the modules of Kubernetes, etcd and cert-manager from the module proxy. Nothing is vendored.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from konverge.lab.realplane.assets import API_SERVER, CONTROLLERS, ETCD, KUBERNETES_VERSION, locate_cache

MODULE = Path(__file__).parent / "kube"
"""The committed go.mod and go.sum, for KUBERNETES_VERSION."""
PACKAGES = {
    ETCD: "go.etcd.io/etcd/server/v3",
    API_SERVER: "k8s.io/kubernetes/cmd/kube-apiserver",
    CONTROLLERS: "k8s.io/kubernetes/cmd/kube-controller-manager",
}
CERT_MANAGER_MODULE = Path(__file__).parent / "kube_certmanager"
"""A main of our own over the published packages of cert-manager: its own program is not installable by itself."""
CERT_MANAGER = "cert-manager-controller"
CERT_MANAGER_CRDS = "crds.yaml"
GENTLY = ("nice", "-n", "19")
CERT_MANAGER_PATH = "github.com/cert-manager/cert-manager"
SETUP_ENVTEST = "sigs.k8s.io/controller-runtime/tools/setup-envtest@latest"
ENVTEST_TIMEOUT = 300.0
"""Seconds for a download of about 100 MB."""
MODULE_TIMEOUT = 900.0
BUILD_TIMEOUT = 3600.0
"""Seconds; an empty build cache takes ten minutes on two cores."""
HEADER = """\
// The real control plane of `make test-kube`, built from the published modules of Kubernetes.
// k8s.io/kubernetes names its staging modules at v0.0.0; they are published as v0.X.Y: hence the replace.
// Written by `python tools/kube_assets.py --write-module`.
"""


class BuildError(Exception):
    """A way to get a program does not work here; the text says why."""


def fetch_envtest(version: str, target: Path, programs: Sequence[str]) -> dict[str, Path]:
    """Copy what envtest's bundle of this minor version has of ``programs`` into ``target``.

    A bundle has etcd and kube-apiserver, and no kube-controller-manager.
    """
    minor = ".".join(version.split(".")[:2])
    command = _find_setup_envtest()
    arguments = ["use", f"{minor}.x", "-p", "path", "--bin-dir", str(target / "envtest")]
    bundle = Path(_run([*command, *arguments], timeout=ENVTEST_TIMEOUT).strip())
    found = {}
    for name in programs:
        if (bundle / name).is_file():
            shutil.copy2(bundle / name, target / name)
            found[name] = target / name
    return found


def _find_setup_envtest() -> list[str]:
    if installed := shutil.which("setup-envtest"):
        return [installed]
    if shutil.which("go"):
        return ["go", "run", SETUP_ENVTEST]
    raise BuildError("neither setup-envtest nor go is on the PATH")


def build_programs(version: str, target: Path, programs: Sequence[str]) -> dict[str, Path]:
    """Compile ``programs`` into ``target`` and return their paths."""
    if not shutil.which("go"):
        raise BuildError("the Go toolchain (go) is not on the PATH")
    module = MODULE
    if version != KUBERNETES_VERSION:
        module = target / "module"
        write_module(version, module)
    flags = _link_flags(module, version)
    return {name: _build(module, name, target / name, flags) for name in programs}


def _build(module: Path, name: str, output: Path, flags: str) -> Path:
    print(f"building {name} (minutes, the first time)", file=sys.stderr, flush=True)
    command = [
        "go",
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags",
        flags,
        "-o",
        str(output),
        PACKAGES[name],
    ]
    _run(command, cwd=module, timeout=BUILD_TIMEOUT, extra={"CGO_ENABLED": "0", "GOWORK": "off"})
    return output


def _link_flags(module: Path, version: str) -> str:
    """Return the linker flags that put the version into the programs; charts compare it as semver."""
    known = _download_module(version, module)
    major, minor, _ = version.split(".")
    values = {
        "gitVersion": f"v{version}",
        "gitMajor": major,
        "gitMinor": minor,
        "gitTreeState": "clean",
        "gitCommit": known.get("Origin", {}).get("Hash", "unknown"),
        "buildDate": known["Time"],
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    settings = [f"-X {package}.{key}={value}" for package in packages for key, value in values.items()]
    return " ".join(["-s", "-w", *settings])


def locate_cert_manager() -> Path:
    """Return the directory of cert-manager in the cache, whether it exists or not; another source, another name."""
    sources = (CERT_MANAGER_MODULE / name for name in ("go.mod", "go.sum", "main.go"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return locate_cache() / f"cert-manager-{read_cert_manager_version()}-{digest[:12]}"


def read_cert_manager_version() -> str:
    """Return the version of cert-manager that is built, such as v1.21.2."""
    found = re.search(rf"{CERT_MANAGER_PATH} (v\S+)", (CERT_MANAGER_MODULE / "go.mod").read_text())
    if found is None:
        raise BuildError(f"{CERT_MANAGER_MODULE / 'go.mod'} does not name {CERT_MANAGER_PATH}")
    return found[1]


def build_cert_manager(target: Path) -> None:
    """Compile cert-manager's controller into ``target``, with its CRDs beside it.

    One package at a time and at the lowest priority: ten minutes on two busy cores.
    """
    if not shutil.which("go"):
        raise BuildError("the Go toolchain (go) is not on the PATH")
    version = read_cert_manager_version()
    print(f"building cert-manager {version} (minutes, the first time)", file=sys.stderr, flush=True)
    flags = f"-s -w -X main.version={version}"
    command = ["go", "build", "-p", "1", "-trimpath", "-buildvcs=false", "-ldflags", flags]
    extra = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    output = ["-o", str(target / CERT_MANAGER), "."]
    _run([*command, *output], cwd=CERT_MANAGER_MODULE, timeout=BUILD_TIMEOUT, extra=extra, prefix=GENTLY)
    asked = ["go", "list", "-m", "-f", "{{.Dir}}", CERT_MANAGER_PATH]
    source = Path(_run(asked, cwd=CERT_MANAGER_MODULE, timeout=MODULE_TIMEOUT, extra=extra).strip())
    definitions = [
        path.read_text().removeprefix("---\n") for path in sorted((source / "deploy" / "crds").glob("*.yaml"))
    ]
    (target / CERT_MANAGER_CRDS).write_text("---\n".join(definitions))


def write_module(version: str, directory: Path) -> None:
    """Write go.mod and go.sum that build ``version`` into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "go.mod").write_text(HEADER + "module konverge.dev/tools/kube\n")
    known = _download_module(version, directory)
    published = Path(known["GoMod"]).read_text()
    (directory / "go.mod").write_text(render_module(version, published))
    _run(
        ["go", "mod", "tidy"],
        cwd=directory,
        timeout=MODULE_TIMEOUT,
        extra={"GOFLAGS": "-mod=mod", "GOWORK": "off"},
    )


def render_module(version: str, published: str) -> str:
    """Return the go.mod for ``version``, given the published one of k8s.io/kubernetes."""
    staged = f"v0.{version.split('.', 1)[1]}"
    go = re.search(r"^go (\S+)$", published, re.MULTILINE)
    debug = re.search(r"^godebug (\S+)$", published, re.MULTILINE)
    names = re.findall(r"^\s*(?:replace )?(k8s\.io/\S+) => \./staging/", published, re.MULTILINE)
    if go is None or not names:
        raise BuildError(f"the go.mod of k8s.io/kubernetes v{version} names no staging modules")
    lines = [HEADER + "module konverge.dev/tools/kube", "", f"go {go[1]}", ""]
    lines += [f"godebug {debug[1]}", ""] if debug else []
    lines += ["tool (", *(f"\t{package}" for package in PACKAGES.values()), ")", ""]
    lines += [f"require k8s.io/kubernetes v{version}", ""]
    lines += ["replace (", *(f"\t{name} => {name} {staged}" for name in names), ")", ""]
    return "\n".join(lines)


def _download_module(version: str, directory: Path) -> dict[str, Any]:
    command = ["go", "list", "-m", "-json", f"k8s.io/kubernetes@v{version}"]
    text = _run(command, cwd=directory, timeout=MODULE_TIMEOUT, extra={"GOFLAGS": "-mod=mod"})
    known: dict[str, Any] = json.loads(text)
    return known


def _run(
    command: Sequence[str],
    *,
    timeout: float,
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> str:
    """Run a command and return what it printed; BuildError ends with the last lines of its complaint."""
    environment = {**os.environ, **(extra or {})}
    try:
        done = subprocess.run(
            [*prefix, *command],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} {command[1]}: {error}") from error
    if done.returncode != 0:
        complaint = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise BuildError(f"{' '.join(command[:3])} failed: {complaint}")
    return done.stdout
