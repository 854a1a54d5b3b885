"""The kinds that Konverge touches, and where the API server serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource type: group ("" for core), version, plural, kind, and whether it lives in namespaces."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, of one object or of its subresource."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


def _core(plural: str, kind: str, namespaced: bool = True) -> Resource:
    return Resource("", "v1", plural, kind, namespaced)


def _kong(plural: str, kind: str, version: str, namespaced: bool = True) -> Resource:
    return Resource("configuration.konghq.com", version, plural, kind, namespaced)


def _gateway(plural: str, kind: str, version: str, namespaced: bool = True) -> Resource:
    return Resource("gateway.networking.k8s.io", version, plural, kind, namespaced)


def _konverge(plural: str, kind: str) -> Resource:
    return Resource("konverge.dev", "v1alpha1", plural, kind)


NAMESPACES = _core("namespaces", "Namespace", namespaced=False)
NODES = _core("nodes", "Node", namespaced=False)
PODS = _core("pods", "Pod")
SERVICES = _core("services", "Service")
SECRETS = _core("secrets", "Secret")
CONFIG_MAPS = _core("configmaps", "ConfigMap")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
EVENTS = _core("events", "Event")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet")
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
HORIZONTAL_POD_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
CERTIFICATES = Resource("cert-manager.io", "v1", "certificates", "Certificate")
CERTIFICATE_REQUESTS = Resource("cert-manager.io", "v1", "certificaterequests", "CertificateRequest")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False)

PROXY_FLEETS = _konverge("proxyfleets", "ProxyFleet")
PROXY_INSTANCES = _konverge("proxyinstances", "ProxyInstance")
CONFIG_REVISIONS = _konverge("configrevisions", "ConfigRevision")
FLEET_MIGRATIONS = _konverge("fleetmigrations", "FleetMigration")
SEALED_IDENTITIES = _konverge("sealedidentities", "SealedIdentity")

SOURCES: tuple[Resource, ...] = (
    INGRESSES,
    INGRESS_CLASSES,
    SERVICES,
    ENDPOINT_SLICES,
    SECRETS,
    CONFIG_MAPS,
    _kong("kongplugins", "KongPlugin", "v1"),
    _kong("kongclusterplugins", "KongClusterPlugin", "v1", namespaced=False),
    _kong("kongconsumers", "KongConsumer", "v1"),
    _kong("kongingresses", "KongIngress", "v1"),
    _kong("kongconsumergroups", "KongConsumerGroup", "v1beta1"),
    _kong("kongupstreampolicies", "KongUpstreamPolicy", "v1beta1"),
    _kong("tcpingresses", "TCPIngress", "v1beta1"),
    _kong("udpingresses", "UDPIngress", "v1beta1"),
    _kong("ingressclassparameterses", "IngressClassParameters", "v1alpha1"),
    _kong("kongvaults", "KongVault", "v1alpha1", namespaced=False),
    _kong("kongcustomentities", "KongCustomEntity", "v1alpha1"),
    _kong("konglicenses", "KongLicense", "v1alpha1", namespaced=False),
    Resource("incubator.ingress-controller.konghq.com", "v1alpha1", "kongservicefacades", "KongServiceFacade"),
    _gateway("gatewayclasses", "GatewayClass", "v1", namespaced=False),
    _gateway("gateways", "Gateway", "v1"),
    _gateway("httproutes", "HTTPRoute", "v1"),
    _gateway("grpcroutes", "GRPCRoute", "v1"),
    _gateway("tcproutes", "TCPRoute", "v1alpha2"),
    _gateway("udproutes", "UDPRoute", "v1alpha2"),
    _gateway("tlsroutes", "TLSRoute", "v1alpha2"),
    _gateway("referencegrants", "ReferenceGrant", "v1beta1"),
    _gateway("backendtlspolicies", "BackendTLSPolicy", "v1alpha3"),
)
"""Every kind that a configuration is rendered from; kinds whose CRD is absent are skipped when listed."""
