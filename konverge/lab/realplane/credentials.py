"""Keys, certificates and kubeconfigs of a real control plane, in one directory of mode 0700.

The authority and the key of ServiceAccount tokens are made once, so that a control plane that is started again
keeps its identity.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from konverge.lab.realplane.authority import CLIENT, SERVER, Authority, encode_key
from konverge.lab.realplane.files import Files, write_secret

SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
USERS = (
    ("admin", "kubernetes-admin", ("system:masters",)),
    ("kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",)),
    ("controllers", "system:kube-controller-manager", ()),
)
"""File name, user and groups of every client certificate."""


def prepare_credentials(directory: Path, server: str, hosts: Iterable[str]) -> Files:
    """Make what is missing under ``directory`` and return the paths; ``server`` is the API server's URL.

    A server may come back on another address: its certificate and the kubeconfigs are always new.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    files = Files(directory)
    authority = Authority(files)
    if not files.path("service-accounts.key").exists():
        _create_token_keys(files)
    authority.issue("apiserver", "kube-apiserver", hosts=[*SERVICE_NAMES, *hosts], usages=(SERVER, CLIENT))
    for name, user, groups in USERS:
        authority.issue(name, user, groups=groups)
    write_kubeconfig(files, files.kubeconfig, server, "admin")
    write_kubeconfig(files, files.path("controllers.kubeconfig"), server, "controllers")
    return files


def write_kubeconfig(files: Files, path: Path, server: str, name: str) -> None:
    """Write a self-contained kubeconfig that logs in with ``name``.crt and ``name``.key."""

    def encode(file: str) -> str:
        return base64.b64encode(files.path(file).read_bytes()).decode()

    cluster = {"server": server, "certificate-authority-data": encode("ca.crt")}
    user = {"client-certificate-data": encode(f"{name}.crt"), "client-key-data": encode(f"{name}.key")}
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "konverge-real", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "konverge-real", "context": {"cluster": "konverge-real", "user": name}}],
        "current-context": "konverge-real",
    }
    write_secret(path, yaml.safe_dump(body).encode())


def _create_token_keys(files: Files) -> None:
    """Write the key pair that signs ServiceAccount tokens; the API server accepts ECDSA keys (ES256)."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_secret(files.path("service-accounts.key"), encode_key(key))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    files.path("service-accounts.pub").write_bytes(public)
