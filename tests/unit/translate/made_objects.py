"""Builders of Kubernetes objects, and short ways to look into a rendering."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from konverge.translate import Rendered, Settings, render

Object = dict[str, Any]

KONG = "configuration.konghq.com"
GATEWAY = "gateway.networking.k8s.io"
INCUBATOR = "incubator.ingress-controller.konghq.com"

API_VERSIONS = {
    "Ingress": "networking.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
    "Service": "v1",
    "Secret": "v1",
    "ConfigMap": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "KongPlugin": f"{KONG}/v1",
    "KongClusterPlugin": f"{KONG}/v1",
    "KongConsumer": f"{KONG}/v1",
    "KongIngress": f"{KONG}/v1",
    "KongConsumerGroup": f"{KONG}/v1beta1",
    "KongUpstreamPolicy": f"{KONG}/v1beta1",
    "TCPIngress": f"{KONG}/v1beta1",
    "UDPIngress": f"{KONG}/v1beta1",
    "IngressClassParameters": f"{KONG}/v1alpha1",
    "KongVault": f"{KONG}/v1alpha1",
    "KongCustomEntity": f"{KONG}/v1alpha1",
    "KongLicense": f"{KONG}/v1alpha1",
    "KongServiceFacade": f"{INCUBATOR}/v1alpha1",
    "GatewayClass": f"{GATEWAY}/v1",
    "Gateway": f"{GATEWAY}/v1",
    "HTTPRoute": f"{GATEWAY}/v1",
    "GRPCRoute": f"{GATEWAY}/v1",
    "TCPRoute": f"{GATEWAY}/v1alpha2",
    "UDPRoute": f"{GATEWAY}/v1alpha2",
    "TLSRoute": f"{GATEWAY}/v1alpha2",
    "ReferenceGrant": f"{GATEWAY}/v1beta1",
    "BackendTLSPolicy": f"{GATEWAY}/v1alpha3",
}
CLASS = {"kubernetes.io/ingress.class": "kong"}
CLUSTER_SCOPED = {"IngressClass", "KongClusterPlugin", "KongVault", "KongLicense", "GatewayClass"}


def make(kind: str, name: str = "a", /, namespace: str = "ns", **fields: Any) -> Object:
    """Return an object; ``annotations``, ``labels``, ``uid`` and ``created`` go into its metadata."""
    metadata: Object = {"name": name}
    if kind not in CLUSTER_SCOPED:
        metadata["namespace"] = namespace
    for field, target in (("annotations", "annotations"), ("labels", "labels"), ("uid", "uid")):
        if field in fields:
            metadata[target] = fields.pop(field)
    if "created" in fields:
        metadata["creationTimestamp"] = f"2024-01-{fields.pop('created'):02d}T00:00:00Z"
    return {"apiVersion": API_VERSIONS[kind], "kind": kind, "metadata": metadata, **fields}


def konghq(**annotations: str) -> dict[str, str]:
    """Return annotations of ours: ``strip_path="true"`` means konghq.com/strip-path."""
    return {f"konghq.com/{name.replace('_', '-')}": text for name, text in annotations.items()}


def service(name: str = "svc", /, ports: Iterable[Any] = (80,), **fields: Any) -> Object:
    """Return a Service; a port is a number or a whole entry."""
    entries = [port if isinstance(port, dict) else {"port": port} for port in ports]
    spec = {"ports": entries, **fields.pop("spec", {})}
    return make("Service", name, spec=spec, **fields)


def path(text: str | None = "/", kind: str | None = "Prefix", svc: str = "svc", port: Any = 80) -> Object:
    """Return a path of an Ingress rule."""
    wanted = {} if port is None else {"name": port} if isinstance(port, str) else {"number": port}
    entry: Object = {"backend": {"service": {"name": svc, "port": wanted}}}
    if text is not None:
        entry["path"] = text
    if kind is not None:
        entry["pathType"] = kind
    return entry


def ingress(
    name: str = "ing", /, *paths: Object, host: str = "", spec: Object | None = None, **fields: Any
) -> Object:
    """Return an Ingress of our class with one rule; without paths it has one Prefix ``/``."""
    rule: Object = {"http": {"paths": list(paths) or [path()]}}
    if host:
        rule["host"] = host
    return make("Ingress", name, spec={"ingressClassName": "kong", "rules": [rule], **(spec or {})}, **fields)


def secret(name: str, /, namespace: str = "ns", **fields: Any) -> Object:
    """Return a Secret; ``values`` are texts, the rest goes into the metadata."""
    values = fields.pop("values", {})
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    return make("Secret", name, namespace, data=data, **fields)


def credential(name: str, type_name: str, /, **values: str) -> Object:
    """Return a Secret with a credential."""
    return secret(name, values=values, labels={"konghq.com/credential": type_name})


def plugin(name: str = "plug", /, namespace: str = "ns", plugin: str = "cors", **fields: Any) -> Object:
    """Return a KongPlugin."""
    return make("KongPlugin", name, namespace, plugin=plugin, **fields)


def consumer(name: str = "bob", /, **fields: Any) -> Object:
    """Return a KongConsumer of our class."""
    annotations = {**CLASS, **fields.pop("annotations", {})}
    return make("KongConsumer", name, username=fields.pop("username", name), annotations=annotations, **fields)


def slice_of(svc: str, *addresses: str, port: int = 8080, **fields: Any) -> Object:
    """Return an EndpointSlice of a Service with ready endpoints."""
    endpoints = fields.pop("endpoints", [{"addresses": [address]} for address in addresses])
    ports = fields.pop("ports", [{"port": port, "protocol": "TCP"}])
    labels = {"kubernetes.io/service-name": svc}
    return make(
        "EndpointSlice", fields.pop("name", f"{svc}-1"), labels=labels, ports=ports, endpoints=endpoints, **fields
    )


def http_route(name: str = "r", /, *rules: Object, **fields: Any) -> Object:
    """Return an HTTPRoute."""
    spec = {"parentRefs": [{"name": "gw"}], "rules": list(rules), **fields.pop("spec", {})}
    return make("HTTPRoute", name, spec=spec, **fields)


def ref(name: str = "svc", port: int | None = 80, **fields: Any) -> Object:
    """Return a backendRef."""
    found = {"name": name, "kind": "Service", **fields}
    return found if port is None else {**found, "port": port}


def match(value: str = "/x", kind: str = "PathPrefix", **fields: Any) -> Object:
    """Return a match of an HTTPRoute."""
    return {"path": {"type": kind, "value": value}, **fields}


def gateway(*listeners: Object, name: str = "gw", **fields: Any) -> Object:
    """Return a Gateway."""
    spec = {"gatewayClassName": "cls", "listeners": list(listeners)}
    return make("Gateway", name, spec=spec, **fields)


def draw(*objects: Any, **settings: Any) -> Rendered:
    """Render; settings with a capital letter are features."""
    features = {name: settings.pop(name) for name in list(settings) if name[0].isupper()}
    return render(objects, Settings(features=features, **settings))


def routes(rendered: Rendered) -> dict[str, Object]:
    """Return the routes by name."""
    services = rendered.document.get("services", [])
    return {route["name"]: route for entity in services for route in entity.get("routes", [])}


def services(rendered: Rendered) -> dict[str, Object]:
    """Return the services by name."""
    return {entity["name"]: entity for entity in rendered.document.get("services", [])}


def upstreams(rendered: Rendered) -> dict[str, Object]:
    """Return the upstreams by name."""
    return {entity["name"]: entity for entity in rendered.document.get("upstreams", [])}


def only(items: Any) -> Any:
    """Return the only item."""
    (item,) = items.values() if isinstance(items, dict) else items
    return item


def reasons(rendered: Rendered) -> list[tuple[str, str]]:
    """Return (reason, kind/name of the object) of the problems."""
    return [(item.reason, f"{item.object_ref.kind}/{item.object_ref.name}") for item in rendered.problems]
