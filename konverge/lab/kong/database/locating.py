"""Which file plays the database that KONG_PG_* names."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from konverge.lab.pod import PodEnvironment

DIRECTORY = "KONVERGE_LAB_KONG_DATABASES"
"""Directory for databases that are given by name."""


def locate_database(environ: Mapping[str, str], pod: PodEnvironment) -> Path:
    """Return the file: KONG_PG_DATABASE where that is a path, else one file per host, port and name.

    All pods of a lab find the same file, and it goes when the lab's directory goes: it lies beside the pods'
    volumes. Without a pod it lies in the directory of temporary files.
    """
    name = environ.get("KONG_PG_DATABASE") or "kong"
    if "/" in name:
        return pod.resolve_path(name)
    parts = (environ.get("KONG_PG_HOST") or "127.0.0.1", environ.get("KONG_PG_PORT") or "5432", name)
    return _directory(environ, pod) / (re.sub(r"[^A-Za-z0-9.-]", "_", "-".join(parts)) + ".sqlite")


def _directory(environ: Mapping[str, str], pod: PodEnvironment) -> Path:
    if environ.get(DIRECTORY):
        return Path(environ[DIRECTORY])
    for mounted in pod.mounts.values():
        # The kubelet of the lab keeps the volumes of a pod under ROOT/pods/UID.
        parents = [parent for parent in Path(mounted).parents if parent.name == "pods"]
        if parents:
            return parents[-1].parent / "databases"
    return Path(tempfile.gettempdir()) / f"konverge-lab-databases-{os.getuid()}"
