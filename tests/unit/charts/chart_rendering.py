"""Renders the chart with helm 3 and helm 4; tests are skipped for one that is not in the cache."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "konverge"
RELEASE, NAMESPACE = "demo", "kong"
Object = dict[str, Any]


def load_tool(name: str) -> Any:
    """Import a module of tools/ without putting the directory on the path."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Helm:
    """One helm."""

    major: str
    path: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run helm; nothing is checked."""
        return subprocess.run([self.path, *arguments], capture_output=True, text=True, timeout=60)

    def try_render(self, **values: Any) -> subprocess.CompletedProcess[str]:
        """Render the chart with values by dotted path, e.g. ``gateway__replicas=2``."""
        settings = [f"--set-json={key.replace('__', '.')}={yaml_json(value)}" for key, value in values.items()]
        return self.run("template", RELEASE, str(CHART), "--namespace", NAMESPACE, *settings)

    def render(self, **values: Any) -> list[Object]:
        """Return the objects of the chart, tests and hooks included."""
        done = self.try_render(**values)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]


def yaml_json(value: Any) -> str:
    """Return a value as JSON for --set-json."""
    return json.dumps(value)


def find(objects: list[Object], kind: str, name: str) -> Object:
    """Return the one object of that kind and name."""
    found = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{kind} {name}: {len(found)} of {[(o['kind'], o['metadata']['name']) for o in objects]}"
    return found[0]


def pods_of(objects: list[Object]) -> dict[str, Object]:
    """Return the pod specifications of all Deployments and Pods by name."""
    found = {}
    for item in objects:
        if item["kind"] == "Deployment":
            found[item["metadata"]["name"]] = item["spec"]["template"]["spec"]
        elif item["kind"] == "Pod":
            found[item["metadata"]["name"]] = item["spec"]
    return found


def environment_of(container: Object) -> dict[str, Any]:
    """Return the environment of a container; None stands for a reference."""
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def pick_helm(major: str) -> Helm:
    """Return a cached helm, or skip."""
    tool = load_tool("helm")
    path = tool.find_helms().get(major)
    if path is None:
        pytest.skip(f"helm {major} is not in {tool.locate_cache()}: python tools/helm.py --fetch")
    return Helm(major, path)
