"""The command lines of the three programs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from konverge.lab.realplane.files import Files

ETCD_SOCKET = "unix://etcd:1"
"""A socket file ``etcd:1`` in the working directory: etcd insists on host:port, and sun_path is short."""
PEER_SOCKET = "unix://peer:1"
UNROUTED = "10.244.0.1"
"""Advertised where the server listens on loopback, which it refuses to advertise; nobody dials it."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the API server listens, and the ranges of Service and Pod addresses."""

    bind: str
    port: int
    service_cidr: str
    cluster_cidr: str

    @property
    def first_service(self) -> str:
        """The address of the Service ``default/kubernetes``."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def routed(self) -> bool:
        """Whether the API server can be an endpoint of ``default/kubernetes``: real ones refuse loopback."""
        return not ipaddress.ip_address(self.bind).is_loopback


def build_etcd_flags() -> list[str]:
    """Return the flags of a single member that listens on unix sockets and never syncs to disk."""
    return [
        "--name=konverge",
        "--data-dir=etcd-data",
        f"--listen-client-urls={ETCD_SOCKET}",
        f"--advertise-client-urls={ETCD_SOCKET}",
        f"--listen-peer-urls={PEER_SOCKET}",
        f"--initial-advertise-peer-urls={PEER_SOCKET}",
        f"--initial-cluster=konverge={PEER_SOCKET}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def build_api_server_flags(files: Files, addresses: Addresses) -> list[str]:
    """Return the flags: RBAC, client certificates and ServiceAccount tokens, kubelets reached over mTLS."""
    routed = addresses.routed
    return [
        f"--etcd-servers={ETCD_SOCKET}",
        f"--bind-address={addresses.bind}",
        f"--secure-port={addresses.port}",
        f"--advertise-address={addresses.bind if routed else UNROUTED}",
        f"--endpoint-reconciler-type={'lease' if routed else 'none'}",
        f"--service-cluster-ip-range={addresses.service_cidr}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--client-ca-file={files.path('ca.crt')}",
        f"--tls-cert-file={files.path('apiserver.crt')}",
        f"--tls-private-key-file={files.path('apiserver.key')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={files.path('service-accounts.pub')}",
        f"--service-account-signing-key-file={files.path('service-accounts.key')}",
        f"--kubelet-certificate-authority={files.path('ca.crt')}",
        f"--kubelet-client-certificate={files.path('kubelet-client.crt')}",
        f"--kubelet-client-key={files.path('kubelet-client.key')}",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
    ]


def build_controllers_flags(files: Files, addresses: Addresses) -> list[str]:
    """Return the flags of kube-controller-manager without the controllers that need clouds or kubelets.

    node-ipam wants ranges per node, node-lifecycle evicts from nodes whose kubelet sends no lease.
    """
    return [
        f"--kubeconfig={files.path('controllers.kubeconfig')}",
        "--controllers=*,-node-ipam-controller,-node-lifecycle-controller",
        "--leader-elect=false",
        "--secure-port=0",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={files.path('service-accounts.key')}",
        f"--root-ca-file={files.path('ca.crt')}",
        f"--cluster-signing-cert-file={files.path('ca.crt')}",
        f"--cluster-signing-key-file={files.path('ca.key')}",
        f"--cluster-cidr={addresses.cluster_cidr}",
        f"--service-cluster-ip-range={addresses.service_cidr}",
        "--kube-api-qps=200",
        "--kube-api-burst=400",
    ]
