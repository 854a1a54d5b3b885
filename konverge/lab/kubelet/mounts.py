"""Which host path stands for which path inside a container."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from konverge.errors import Invalid
from konverge.lab.kubelet.environment import expand
from konverge.lab.kubelet.payloads import is_projected
from konverge.lab.kubelet.volumes import PodVolumes

Object = dict[str, Any]
TERMINATION_LOG = "/dev/termination-log"
TOKEN_DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, not a secret


async def map_mounts(container: Object, volumes: PodVolumes, env: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return container path -> host path, the termination log included; Invalid for an unknown volume."""
    known = {item["name"]: item for item in volumes.pod["spec"].get("volumes") or ()}
    termination = home / "termination-log"
    mounts = {container.get("terminationMessagePath") or TERMINATION_LOG: str(termination)}
    await asyncio.to_thread(_empty, termination)
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in known:
            raise Invalid(f"volumeMounts[{index}] of {container['name']} names no volume: {mount['name']!r}")
        path = volumes.path(mount["name"])
        sub = mount.get("subPath") or expand(mount.get("subPathExpr") or "", env)
        if sub:
            copy = home / "subpaths" / str(index) if is_projected(known[mount["name"]]) else None
            path = await asyncio.to_thread(_sub_path, path, sub, copy)
        mounts[mount["mountPath"]] = str(path)
    return mounts


def _empty(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def _sub_path(volume: Path, sub: str, copy: Path | None) -> Path:
    """Return the part of a volume; of a projected one a copy, because a subPath mount never changes."""
    source = volume / sub
    if ".." in Path(sub).parts or Path(sub).is_absolute():
        raise Invalid(f"subPath {sub!r} leaves its volume")
    if copy is None:
        if not source.exists():
            source.mkdir(parents=True)
        return source
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    target = copy / source.name
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy(source, target)
    else:
        target.mkdir()  # what a runtime makes of a subPath that does not exist
    return target


def translate(words: tuple[str, ...], mounts: Mapping[str, str]) -> tuple[str, ...]:
    """Replace container paths under mounts by host paths in the words of a host command.

    A host command sees the machine's files, not the container's: ``rm -rf /kong_prefix/pids`` must reach the volume.
    """
    plain = {path.rstrip("/"): host for path, host in mounts.items() if path.strip("/")}
    if not plain:
        return words
    names = "|".join(re.escape(path) for path in sorted(plain, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w./-])({names})(?=$|[/\s\"';|&>)])")
    return tuple(pattern.sub(lambda match: plain[match[1]], word) for word in words)
