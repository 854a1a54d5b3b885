"""Objects that the tests against a real control plane create."""

from __future__ import annotations

from konverge.kube.resources import Object, Resource

ISSUERS = Resource("cert-manager.io", "v1", "issuers", "Issuer")
CLUSTER_ISSUERS = Resource("cert-manager.io", "v1", "clusterissuers", "ClusterIssuer", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")


def build_deployment(name: str, namespace: str, replicas: int = 1) -> Object:
    """Return a Deployment whose Pods listen on a port named http."""
    labels = {"app": name}
    container = {"name": "main", "image": "konverge/echo", "ports": [{"name": "http", "containerPort": 8080}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def build_service(name: str, namespace: str) -> Object:
    """Return a Service in front of that Deployment."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    }


def build_pod(name: str, namespace: str, node: str) -> Object:
    """Return a Pod that is bound to a node."""
    container = {"name": "main", "image": "konverge/echo"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": node, "containers": [container]},
    }


def build_binding(pod: str, node: str) -> Object:
    """Return what a scheduler posts to ``pods/binding``."""
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}


def build_running_status(address: str, ready: bool = True) -> Object:
    """Return the status that a kubelet reports for a running Pod; it is a patch."""
    word = "True" if ready else "False"
    return {
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": kind, "status": word} for kind in ("Ready", "ContainersReady")],
        }
    }
