"""What a container needs to call the API server from this machine, where its own file system is not."""

from __future__ import annotations

import json
from pathlib import Path


def write_kubeconfig(path: Path, server: str, account: Path, namespace: str) -> None:
    """Write a kubeconfig that uses a mounted service account: its token file (which rotates) and authority.

    In a real container the client finds /var/run/secrets/kubernetes.io/serviceaccount; here that path is elsewhere.
    """
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "pod",
        "clusters": [
            {"name": "lab", "cluster": {"server": server, "certificate-authority": str(account / "ca.crt")}}
        ],
        "users": [{"name": "account", "user": {"tokenFile": str(account / "token")}}],
        "contexts": [{"name": "pod", "context": {"cluster": "lab", "user": "account", "namespace": namespace}}],
    }
    path.write_text(json.dumps(config, indent=1))


def write_commands(directory: Path, python: str) -> None:
    """Write the commands that a shell inside a container finds first on its PATH: ``kong``."""
    directory.mkdir(parents=True, exist_ok=True)
    command = directory / "kong"
    command.write_text(f'#!/bin/sh\nexec "{python}" -m konverge.lab.kong.command "$@"\n')
    command.chmod(0o755)
