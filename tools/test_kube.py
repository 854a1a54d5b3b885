"""Runs the suites that need a real control plane (``make test-kube``), in a private network.

The conformance suite (tests/contract/apiserver) and the tests marked ``kube`` (tests/kube) get one control plane
each, so that neither sees the other's objects. The story (tests/e2e/test_migration.py) starts a lab of its own whose
control plane is the real one. Further arguments go to pytest.

Exit codes: pytest's; 3 where the programs or the private network are missing, or 0 with ``--if-available``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from konverge.errors import CheckRefused
from konverge.lab.pod import die_with_parent
from konverge.lab.realplane import PlaneSettings, RealControlPlane, require_assets

EXIT_MISSING = 3
ROOT = Path(__file__).parents[1]
CONFORMANCE = ROOT / "tests" / "contract" / "apiserver"
KUBE = ROOT / "tests" / "kube"
STORY = ROOT / "tests" / "e2e" / "test_migration.py"
INSIDE = "KONVERGE_IN_PRIVATE_NETWORK"
PLANE_ADDRESS = "10.244.0.1"
SUITE_TIMEOUT = 1800.0
NO_TESTS_COLLECTED = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options, rest = _parse(arguments)
    try:
        require_assets()
        if os.environ.get(INSIDE) != "1":
            return _enter_private_network(options, rest)
        die_with_parent()
    except CheckRefused as error:
        return _give_up(error.message, options.if_available)
    codes = [
        asyncio.run(run_story(rest) if suite == STORY else run_suite(suite, rest)) for suite in _choose(options.suite)
    ]
    return max(codes, default=NO_TESTS_COLLECTED)


async def run_story(arguments: Sequence[str]) -> int:
    """Run the story in a lab with a real control plane and return pytest's exit code."""
    return await _run_pytest(STORY, arguments, {"KONVERGE_E2E_CONTROL_PLANE": "real"})


async def run_suite(suite: Path, arguments: Sequence[str]) -> int:
    """Start a control plane, run one suite against it, return pytest's exit code."""
    async with RealControlPlane(PlaneSettings(bind=PLANE_ADDRESS)) as plane:
        kubeconfig = str(plane.kubeconfig)
        name = "KONVERGE_TEST_KUBECONFIG" if suite == KUBE else "KONVERGE_CONFORMANCE_KUBECONFIG"
        return await _run_pytest(suite, arguments, {name: kubeconfig})


async def _run_pytest(suite: Path, arguments: Sequence[str], variables: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", str(suite), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, **variables}, preexec_fn=die_with_parent
    )
    try:
        async with asyncio.timeout(SUITE_TIMEOUT):
            code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return 0 if code == NO_TESTS_COLLECTED and arguments else code


def _choose(name: str) -> list[Path]:
    suites = {
        "conformance": [CONFORMANCE],
        "kube": [KUBE],
        "story": [STORY],
        "all": [CONFORMANCE, KUBE, STORY],
    }
    return [suite for suite in suites[name] if suite.exists()]


def _enter_private_network(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run this program again inside a private network; the child reports why where there is none."""
    own = [sys.executable, __file__, "--suite", options.suite, *rest]
    command = [sys.executable, "-m", "konverge.lab.namespaces", "--", *own]
    code = subprocess.run(command, env={**os.environ, INSIDE: "1"}, cwd=ROOT, check=False).returncode
    if code == EXIT_MISSING:
        return _give_up("see the message above", options.if_available)
    return code


def _give_up(message: str, if_available: bool) -> int:
    print(f"test-kube: {'skipped' if if_available else 'cannot run'}: {message}")
    return 0 if if_available else EXIT_MISSING


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description="suites that need a real control plane")
    parser.add_argument("--if-available", action="store_true", help="exit 0 where something is missing")
    parser.add_argument("--suite", choices=["all", "conformance", "kube", "story"], default="all")
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
