"""What every cluster has from the start: namespaces, accounts, the service ``kubernetes``, basic roles."""

from __future__ import annotations

import uuid
from typing import Any

from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.store import Event, Object

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
RBAC = "rbac.authorization.k8s.io"
BOOTSTRAP = {"kubernetes.io/bootstrapping": "rbac-defaults"}
READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
EDITABLE = {
    "": [
        "configmaps",
        "endpoints",
        "events",
        "persistentvolumeclaims",
        "pods",
        "secrets",
        "serviceaccounts",
        "services",
    ],
    "apps": [
        "daemonsets",
        "deployments",
        "deployments/scale",
        "replicasets",
        "replicasets/scale",
        "statefulsets",
        "statefulsets/scale",
    ],
    "autoscaling": ["horizontalpodautoscalers"],
    "batch": ["cronjobs", "jobs"],
    "networking.k8s.io": ["ingresses", "networkpolicies"],
    "policy": ["poddisruptionbudgets"],
    "discovery.k8s.io": ["endpointslices"],
    "coordination.k8s.io": ["leases"],
}
PUBLIC_PATHS = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
DISCOVERY_PATHS = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]


def _rule(verbs: list[str], group: str, resources: list[str]) -> Object:
    return {"verbs": verbs, "apiGroups": [group], "resources": resources}


def _roles() -> dict[str, list[Object]]:
    everything = [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]
    view = [_rule(READ, group, [r for r in resources if r != "secrets"]) for group, resources in EDITABLE.items()]
    view.append(_rule(READ, "", ["namespaces", "pods/log", "pods/status", "services/status"]))
    edit = [_rule(READ + WRITE, group, resources) for group, resources in EDITABLE.items()]
    edit.append(
        _rule(READ + WRITE, "", ["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"])
    )
    edit.append(_rule(["create"], "", ["pods/eviction", "serviceaccounts/token"]))
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    return {
        "cluster-admin": everything,
        "view": view,
        "edit": [*edit, *view],
        "admin": [*edit, *view, _rule(READ + WRITE, RBAC, ["rolebindings", "roles"])],
        "system:public-info-viewer": [{"verbs": ["get"], "nonResourceURLs": PUBLIC_PATHS}],
        "system:discovery": [{"verbs": ["get"], "nonResourceURLs": DISCOVERY_PATHS}],
        "system:basic-user": [
            _rule(["create"], "authorization.k8s.io", reviews),
            _rule(["create"], "authentication.k8s.io", ["selfsubjectreviews"]),
        ],
    }


BINDINGS = {
    "cluster-admin": ["system:masters"],
    "system:discovery": ["system:authenticated"],
    "system:basic-user": ["system:authenticated"],
    "system:public-info-viewer": ["system:authenticated", "system:unauthenticated"],
}


class Bootstrap:
    """Creates what is missing at start, and what every new namespace needs."""

    def __init__(self, state: State, ca: bytes, address: tuple[str, int]) -> None:
        self._state = state
        self._ca = ca.decode()
        self._address = address
        state.store.listeners.append(self._follow)

    def run(self) -> None:
        """Create what is missing."""
        for name in NAMESPACES:
            if self._missing("namespaces", "", name):
                labels = {"kubernetes.io/metadata.name": name}
                spec: Object = {"finalizers": ["kubernetes"]}
                self._put(
                    "namespaces", "Namespace", "v1", name, "", {"spec": spec, "status": {"phase": "Active"}}, labels
                )
            else:
                self._furnish(name)
        self._put_roles()
        self._put_service()

    def _follow(self, storage: str, event: Event) -> None:
        if storage == "namespaces" and event.type == "ADDED":
            self._state.tasks.call_soon(self._furnish, event.entry.object["metadata"]["name"])
        elif storage == "serviceaccounts" and event.type == "DELETED":
            namespace, name = event.entry.key
            if name == "default":
                self._state.tasks.call_soon(self._furnish, namespace)

    def _furnish(self, namespace: str) -> None:
        entry = self._state.store.collection("namespaces").get("", namespace)
        if entry is None or entry.object["metadata"].get("deletionTimestamp"):
            return
        if self._missing("serviceaccounts", namespace, "default"):
            self._put("serviceaccounts", "ServiceAccount", "v1", "default", namespace, {})
        if self._missing("configmaps", namespace, "kube-root-ca.crt"):
            self._put("configmaps", "ConfigMap", "v1", "kube-root-ca.crt", namespace, {"data": {"ca.crt": self._ca}})

    def _put_roles(self) -> None:
        version = f"{RBAC}/v1"
        for name, rules in _roles().items():
            if self._missing(f"{RBAC}/clusterroles", "", name):
                self._put(f"{RBAC}/clusterroles", "ClusterRole", version, name, "", {"rules": rules}, BOOTSTRAP)
        for name, groups in BINDINGS.items():
            if self._missing(f"{RBAC}/clusterrolebindings", "", name):
                subjects = [{"kind": "Group", "apiGroup": RBAC, "name": group} for group in groups]
                reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": name}
                body = {"roleRef": reference, "subjects": subjects}
                self._put(f"{RBAC}/clusterrolebindings", "ClusterRoleBinding", version, name, "", body, BOOTSTRAP)

    def _put_service(self) -> None:
        if not self._missing("services", "default", "kubernetes"):
            return
        address = self._state.allocator.first
        spec = {
            "clusterIP": address,
            "clusterIPs": [address],
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self._address[1]}],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        }
        labels = {"component": "apiserver", "provider": "kubernetes"}
        body = {"spec": spec, "status": {"loadBalancer": {}}}
        self._put("services", "Service", "v1", "kubernetes", "default", body, labels)
        self._state.allocator.take(spec)
        self._put_slice()

    def _put_slice(self) -> None:
        host, port = self._address
        body = {
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        labels = {"kubernetes.io/service-name": "kubernetes"}
        storage = "discovery.k8s.io/endpointslices"
        self._put(storage, "EndpointSlice", "discovery.k8s.io/v1", "kubernetes", "default", body, labels)

    def _missing(self, storage: str, namespace: str, name: str) -> bool:
        return self._state.store.collection(storage).get(namespace, name) is None

    def _put(
        self,
        storage: str,
        kind: str,
        version: str,
        name: str,
        namespace: str,
        body: Object,
        labels: dict[str, str] | None = None,
    ) -> None:
        metadata: dict[str, Any] = {
            "name": name,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": self._state.clock.stamp(),
        }
        if namespace:
            metadata["namespace"] = namespace
        if labels:
            metadata["labels"] = dict(labels)
        self._state.store.put(storage, {"apiVersion": version, "kind": kind, "metadata": metadata, **body})
