"""A random cluster with few names, so that objects collide, refer to each other and dangle."""

from __future__ import annotations

import base64
import copy
import random
from typing import Any

from made_certificates import AUTHORITY, PAIRS

NAMESPACES = ("red", "blue")
NAMES = ("a", "b", "c")
HOSTS = ("", "a.example.com", "b.example.com", "*.example.com")
PATHS = ("/", "/x", "/x/y", "/~/v\\d+")
PLUGIN_LISTS = ("", "a", "b,c", "red:a", "blue:b", "missing")

Object = dict[str, Any]
Key = tuple[str, str, str]


def kind_of(value: Object) -> str:
    return f"{value['kind']} {value['metadata'].get('namespace')}/{value['metadata']['name']}"


def encode(**values: str) -> dict[str, str]:
    return {name.replace("_", "."): base64.b64encode(text.encode()).decode() for name, text in values.items()}


class Cluster:
    """The objects, and the edits that happen to them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.objects: dict[Key, Object] = {}
        self._clock = 0
        for _ in range(120):
            self.put(self.make())

    def put(self, value: Object) -> None:
        metadata = value["metadata"]
        self.objects[(value["kind"], metadata.get("namespace", ""), metadata["name"])] = value

    def edit(self) -> tuple[str, Object]:
        """Do one edit and return the event of the watch."""
        action = self.rng.random()
        if action < 0.25 and self.objects:
            key = self.rng.choice(sorted(self.objects))
            return "DELETED", self.objects.pop(key)
        if action < 0.35 and self.objects:
            value = copy.deepcopy(self.objects[self.rng.choice(sorted(self.objects))])
            value["metadata"]["annotations"] = self.annotations()
            self.put(value)
            return "MODIFIED", value
        value = self.make()
        if self.rng.random() < 0.05:
            value["spec"] = "malformed"
            value["data"] = 5
        self.put(value)
        return "MODIFIED", value

    def annotations(self) -> dict[str, str]:
        rng = self.rng
        found = {"kubernetes.io/ingress.class": "kong"} if rng.random() < 0.8 else {}
        choices = {
            "konghq.com/plugins": rng.choice(PLUGIN_LISTS),
            "konghq.com/strip-path": rng.choice(("true", "no")),
            "konghq.com/protocols": rng.choice(("https", "grpc,http", "bad")),
            "konghq.com/protocol": rng.choice(("https", "grpc", "bad")),
            "konghq.com/rewrite": rng.choice(("/x/$1", "/bad$")),
            "konghq.com/upstream-policy": rng.choice(NAMES),
            "konghq.com/override": rng.choice(NAMES),
            "konghq.com/host-header": "h.example.com",
            "konghq.com/client-cert": rng.choice(NAMES),
            "konghq.com/tls-verify": "true",
            "konghq.com/ca-certificates-secrets": rng.choice(NAMES),
            "konghq.com/tags": "one,two",
            "konghq.com/headers.x-a": "1,2",
            "konghq.com/host-aliases": "alias.example.com",
            "ingress.kubernetes.io/service-upstream": "true",
        }
        for name in rng.sample(sorted(choices), rng.choice((0, 0, 1, 2))):
            found[name] = choices[name]
        return found

    def make(self) -> Object:
        kind = self.rng.choice(sorted(MAKERS))
        api_version, namespaced, make = MAKERS[kind]
        self._clock += 1
        metadata: Object = {
            "name": self.rng.choice(NAMES),
            "uid": f"uid-{self._clock}",
            "creationTimestamp": f"2024-01-01T00:00:{self.rng.randrange(5):02d}Z",
            "annotations": self.annotations(),
            "labels": {"konghq.com/credential": "key-auth"} if kind == "Secret" else {},
        }
        if namespaced:
            metadata["namespace"] = self.rng.choice(NAMESPACES)
        if kind in ("Secret", "ConfigMap") and self.rng.random() < 0.3:
            metadata["labels"]["konghq.com/ca-cert"] = "true"
        if kind == "KongClusterPlugin" and self.rng.random() < 0.5:
            metadata["labels"]["global"] = "true"
        if kind == "EndpointSlice":
            metadata["labels"]["kubernetes.io/service-name"] = self.rng.choice(NAMES)
        if kind == "IngressClass":
            metadata["name"] = "kong"
            if self.rng.random() < 0.5:
                metadata["annotations"]["ingressclass.kubernetes.io/is-default-class"] = "true"
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **make(self.rng)}


def _backend(rng: random.Random) -> Object:
    if rng.random() < 0.2:
        group = "incubator.ingress-controller.konghq.com"
        return {"resource": {"apiGroup": group, "kind": "KongServiceFacade", "name": rng.choice(NAMES)}}
    port = rng.choice(({"number": 80}, {"name": "http"}, {}))
    return {"service": {"name": rng.choice(NAMES), "port": port}}


def _ingress(rng: random.Random) -> Object:
    types = ("Prefix", "Exact", "ImplementationSpecific", None)
    rules = [
        {
            "host": rng.choice(HOSTS),
            "http": {
                "paths": [
                    {"path": rng.choice(PATHS), "pathType": rng.choice(types), "backend": _backend(rng)}
                    for _ in range(rng.randrange(3))
                ]
            },
        }
        for _ in range(rng.randrange(3))
    ]
    spec: Object = {"rules": rules}
    if rng.random() < 0.5:
        spec["ingressClassName"] = rng.choice(("kong", "other"))
    if rng.random() < 0.2:
        spec["defaultBackend"] = _backend(rng)
    if rng.random() < 0.3:
        spec["tls"] = [{"hosts": [rng.choice(HOSTS[1:])], "secretName": rng.choice(NAMES)}]
    return {"spec": spec}


def _ingress_class(rng: random.Random) -> Object:
    reference = {
        "apiGroup": "configuration.konghq.com",
        "kind": "IngressClassParameters",
        "scope": "Namespace",
        "namespace": rng.choice(NAMESPACES),
        "name": rng.choice(NAMES),
    }
    return {"spec": {"controller": "x", **({"parameters": reference} if rng.random() < 0.7 else {})}}


def _service(rng: random.Random) -> Object:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    spec: Object = {"ports": ports[: rng.choice((1, 2))]}
    if rng.random() < 0.1:
        spec = {"type": "ExternalName", "externalName": "example.org"}
    return {"spec": spec}


def _slice(rng: random.Random) -> Object:
    condition = {"ready": rng.choice((True, False, None)), "terminating": rng.choice((True, False))}
    address = rng.choice(("10.0.0.1", "10.0.0.2", "fd00::1"))
    return {
        "ports": [{"name": "http", "port": rng.choice((8080, 9090)), "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": condition}],
    }


def _secret(rng: random.Random) -> Object:
    certificate, key = rng.choice(PAIRS)
    values = {"tls_crt": certificate, "tls_key": key, "key": rng.choice("xyz"), "id": rng.choice(NAMES)}
    if rng.random() < 0.5:
        values["cert"] = AUTHORITY
    values["config"] = rng.choice(('{"minute": 5}', "minute: 6", "[")) if rng.random() < 0.8 else "{}"
    return {"data": encode(**values)}


def _plugin(rng: random.Random) -> Object:
    found: Object = {"plugin": rng.choice(("cors", "rate-limiting"))}
    source = {"secretKeyRef": {"name": rng.choice(NAMES), "key": "config", "namespace": "red"}}
    if rng.random() < 0.2:
        found["configFrom"] = source
    elif rng.random() < 0.2:
        found["configPatches"] = [{"path": "/limits/one", "valueFrom": source}]
    else:
        found["config"] = {"minute": rng.randrange(9)}
    if rng.random() < 0.3:
        found["instance_name"] = "inst"
    return found


def _references(rng: random.Random) -> list[Object]:
    return [
        {
            "name": rng.choice(NAMES),
            "kind": rng.choice(("Service", "Service", "Other")),
            "port": 80,
            **({"namespace": rng.choice(NAMESPACES)} if rng.random() < 0.4 else {}),
            **({"weight": rng.randrange(3)} if rng.random() < 0.4 else {}),
        }
        for _ in range(rng.choice((0, 1, 1, 2)))
    ]


def _http_route(rng: random.Random) -> Object:
    filters: list[Object] = []
    if rng.random() < 0.3:
        change = {"set": [{"name": "x", "value": "1"}]}
        filters.append({"type": "RequestHeaderModifier", "requestHeaderModifier": change})
    if rng.random() < 0.2:
        path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": rng.choice(("/", "/new"))}
        filters.append({"type": "URLRewrite", "urlRewrite": {"path": path}})
    if rng.random() < 0.1:
        filters.append({"type": "RequestMirror"})
    if rng.random() < 0.2:
        extension = {"group": "configuration.konghq.com", "kind": "KongPlugin", "name": rng.choice(NAMES)}
        filters.append({"type": "ExtensionRef", "extensionRef": extension})
    match = {"path": {"type": rng.choice(("Exact", "PathPrefix")), "value": rng.choice(PATHS)}}
    if rng.random() < 0.2:
        match["headers"] = [{"name": "H", "value": "1"}]
    rules = [
        {"matches": [match] * rng.randrange(2), "backendRefs": _references(rng), "filters": filters}
        for _ in range(rng.choice((0, 1, 2)))
    ]
    return {"spec": {"parentRefs": [{"name": "a"}], "hostnames": ["h.example.com"], "rules": rules}}


def _grpc_route(rng: random.Random) -> Object:
    match = {"method": {"service": rng.choice(("S", "")), "method": "M"}}
    rules = [{"name": "r", "matches": [match], "backendRefs": _references(rng)}]
    return {"spec": {"parentRefs": [{"name": "a"}], "rules": rules}}


def _stream_route(rng: random.Random) -> Object:
    rules = [{"backendRefs": _references(rng)} for _ in range(rng.choice((1, 2)))]
    return {"spec": {"parentRefs": [{"name": "a"}], "hostnames": ["t.example.com"], "rules": rules}}


def _gateway(rng: random.Random) -> Object:
    tls = {"certificateRefs": [{"name": rng.choice(NAMES)}], "mode": rng.choice(("Terminate", "Passthrough"))}
    listener = {"name": "l", "protocol": rng.choice(("HTTP", "HTTPS", "TCP", "UDP")), "port": 80, "tls": tls}
    return {
        "spec": {"gatewayClassName": "a", "listeners": [listener]},
        "status": {"listeners": [{"name": "l"}] if rng.random() < 0.7 else []},
    }


def _grant(rng: random.Random) -> Object:
    return {
        "spec": {
            "from": [
                {
                    "group": rng.choice(("gateway.networking.k8s.io", "networking.k8s.io", "")),
                    "kind": rng.choice(("HTTPRoute", "Ingress", "Service")),
                    "namespace": rng.choice(NAMESPACES),
                }
            ],
            "to": [
                {"group": "", "kind": "Service"},
                {"group": "configuration.konghq.com", "kind": "KongPlugin"},
            ],
        }
    }


def _layer4(rng: random.Random) -> Object:
    backend = {"serviceName": rng.choice(NAMES), "servicePort": rng.choice((80, 53))}
    return {"spec": {"rules": [{"port": 9000, "host": "t.example.com", "backend": backend}]}}


def _consumer(rng: random.Random) -> Object:
    return {
        "username": rng.choice(("", "u1", "u2")),
        "custom_id": rng.choice(("", "c1")),
        "credentials": rng.sample(NAMES, rng.randrange(3)),
        "consumerGroups": rng.sample(NAMES, rng.randrange(2)),
    }


def _policy(rng: random.Random) -> Object:
    return {"spec": {"algorithm": rng.choice(("round-robin", "sticky-sessions")), "slots": 100}}


def _custom_entity(rng: random.Random) -> Object:
    parent = {"group": "configuration.konghq.com", "kind": "KongPlugin", "name": rng.choice(NAMES)}
    kind = rng.choice(("degraphql_routes", "other", "services"))
    return {"spec": {"type": kind, "controllerName": "kong", "fields": {"uri": "/q"}, "parentRef": parent}}


def _tls_policy(rng: random.Random) -> Object:
    targets = [{"group": "", "kind": "Service", "name": rng.choice(NAMES)}]
    validation = {"hostname": "v.example.com", "caCertificateRefs": [{"kind": "Secret", "name": rng.choice(NAMES)}]}
    return {"spec": {"targetRefs": targets, "validation": validation, "options": {"tls-verify-depth": "2"}}}


KONG = "configuration.konghq.com"
GATEWAY = "gateway.networking.k8s.io"

MAKERS: dict[str, tuple[str, bool, Any]] = {
    "Ingress": ("networking.k8s.io/v1", True, _ingress),
    "IngressClass": ("networking.k8s.io/v1", False, _ingress_class),
    "IngressClassParameters": (
        f"{KONG}/v1alpha1",
        True,
        lambda rng: {
            "spec": {"serviceUpstream": rng.random() < 0.5, "enableLegacyRegexDetection": rng.random() < 0.5}
        },
    ),
    "KongLicense": (f"{KONG}/v1alpha1", False, lambda rng: {"rawLicenseString": rng.choice(NAMES)}),
    "Service": ("v1", True, _service),
    "Secret": ("v1", True, _secret),
    "ConfigMap": ("v1", True, lambda rng: {"data": {"id": rng.choice(NAMES), "ca.crt": AUTHORITY}}),
    "EndpointSlice": ("discovery.k8s.io/v1", True, _slice),
    "KongPlugin": (f"{KONG}/v1", True, _plugin),
    "KongClusterPlugin": (f"{KONG}/v1", False, _plugin),
    "KongConsumer": (f"{KONG}/v1", True, _consumer),
    "KongConsumerGroup": (f"{KONG}/v1beta1", True, lambda _: {}),
    "KongUpstreamPolicy": (f"{KONG}/v1beta1", True, _policy),
    "KongIngress": (f"{KONG}/v1", True, lambda _: {"upstream": {"hash_on": "ip"}}),
    "KongVault": (f"{KONG}/v1alpha1", False, lambda rng: {"spec": {"backend": "env", "prefix": rng.choice(NAMES)}}),
    "KongCustomEntity": (f"{KONG}/v1alpha1", True, _custom_entity),
    "KongServiceFacade": (
        "incubator.ingress-controller.konghq.com/v1alpha1",
        True,
        lambda rng: {"spec": {"backendRef": {"name": rng.choice(NAMES), "port": 80}}},
    ),
    "TCPIngress": (f"{KONG}/v1beta1", True, _layer4),
    "UDPIngress": (f"{KONG}/v1beta1", True, _layer4),
    "GatewayClass": (
        f"{GATEWAY}/v1",
        False,
        lambda _: {"spec": {"controllerName": "konghq.com/kic-gateway-controller"}},
    ),
    "Gateway": (f"{GATEWAY}/v1", True, _gateway),
    "HTTPRoute": (f"{GATEWAY}/v1", True, _http_route),
    "GRPCRoute": (f"{GATEWAY}/v1", True, _grpc_route),
    "TCPRoute": (f"{GATEWAY}/v1alpha2", True, _stream_route),
    "UDPRoute": (f"{GATEWAY}/v1alpha2", True, _stream_route),
    "TLSRoute": (f"{GATEWAY}/v1alpha2", True, _stream_route),
    "ReferenceGrant": (f"{GATEWAY}/v1beta1", True, _grant),
    "BackendTLSPolicy": (f"{GATEWAY}/v1alpha3", True, _tls_policy),
}
