"""Every kind that a document is made from: its version, its scope, and the fields that the rules read.

A version that is listed as ``also`` has the same schema and is read as the canonical one, which is what the API
server does for a controller that watches the canonical version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from konverge.translate.shapes import (
    Check,
    Malformed,
    anything,
    boolean,
    integer,
    items,
    mapping,
    port,
    record,
    string,
    strings,
    texts,
)

KONG = "configuration.konghq.com"
GATEWAY = "gateway.networking.k8s.io"
INCUBATOR = "incubator.ingress-controller.konghq.com"
OWN_GROUPS = frozenset({KONG, GATEWAY, INCUBATOR})
"""Groups in which an unknown kind is a mistake rather than somebody else's object."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as the translation knows it."""

    name: str
    group: str
    version: str
    check: Check
    namespaced: bool = True
    also: frozenset[str] = frozenset()

    @property
    def api_version(self) -> str:
        """The canonical ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version


_METADATA = record(
    name=string,
    namespace=string,
    uid=string,
    creationTimestamp=string,
    generation=integer,
    annotations=texts,
    labels=texts,
)


def _object(**fields: Check) -> Check:
    return record({"metadata": _METADATA}, **fields)


_BACKEND = record(
    service=record(name=string, port=record(number=integer, name=string)),
    resource=record(apiGroup=string, kind=string, name=string),
)
_INGRESS = _object(
    spec=record(
        ingressClassName=string,
        defaultBackend=_BACKEND,
        tls=items(record(hosts=strings, secretName=string)),
        rules=items(
            record(
                host=string,
                http=record(paths=items(record(path=string, pathType=string, backend=_BACKEND))),
            )
        ),
    )
)
_LAYER4 = _object(
    spec=record(
        rules=items(record(host=string, port=integer, backend=record(serviceName=string, servicePort=integer))),
        tls=items(record(hosts=strings, secretName=string)),
    )
)
_SERVICE = _object(
    spec=record(
        type=string,
        externalName=string,
        ports=items(record(name=string, port=integer, protocol=string, targetPort=port)),
    )
)
_SLICE = _object(
    ports=items(record(name=string, port=integer, protocol=string)),
    endpoints=items(
        record(addresses=strings, conditions=record(ready=boolean, terminating=boolean, serving=boolean))
    ),
)
_SECRET_KEY = record(secretKeyRef=record(name=string, key=string, namespace=string))
_SECRET_VALUE = record(secretKeyRef=record(name=string, key=string, namespace=string))
_PLUGIN = _object(
    plugin=string,
    config=anything,
    configFrom=_SECRET_KEY,
    configPatches=items(record(path=string, valueFrom=_SECRET_VALUE)),
    disabled=boolean,
    run_on=string,
    protocols=strings,
    instance_name=string,
    ordering=record(before=mapping(strings), after=mapping(strings)),
)
_CONSUMER = _object(username=string, custom_id=string, credentials=strings, consumerGroups=strings)
_HASH = record(input=string, header=string, cookie=string, cookiePath=string, queryArg=string, uriCapture=string)
_HEALTHY = record(httpStatuses=items(integer), interval=integer, successes=integer)
_UNHEALTHY = record(
    httpFailures=integer, httpStatuses=items(integer), tcpFailures=integer, timeouts=integer, interval=integer
)
_POLICY = _object(
    spec=record(
        algorithm=string,
        slots=integer,
        hashOn=_HASH,
        hashOnFallback=_HASH,
        healthchecks=record(
            threshold=integer,
            active=record(
                type=string,
                concurrency=integer,
                timeout=integer,
                headers=mapping(strings),
                httpPath=string,
                httpsSni=string,
                httpsVerifyCertificate=boolean,
                healthy=_HEALTHY,
                unhealthy=_UNHEALTHY,
            ),
            passive=record(type=string, healthy=_HEALTHY, unhealthy=_UNHEALTHY),
        ),
        stickySessions=record(cookie=string, cookiePath=string),
    )
)
_KONG_INGRESS = _object(
    upstream=record(
        host_header=string,
        algorithm=string,
        slots=integer,
        healthchecks=anything,
        hash_on=string,
        hash_fallback=string,
        hash_on_header=string,
        hash_fallback_header=string,
        hash_on_cookie=string,
        hash_on_cookie_path=string,
        hash_on_query_arg=string,
        hash_fallback_query_arg=string,
        hash_on_uri_capture=string,
        hash_fallback_uri_capture=string,
    )
)
_PARENT_REF = record(group=string, kind=string, name=string, namespace=string, sectionName=string)
_BACKEND_REF = record(group=string, kind=string, name=string, namespace=string, port=integer, weight=integer)
_VALUE_MATCH = record(type=string, name=string, value=string)
_HEADER = record(name=string, value=string)
_HEADER_CHANGE = record(set=items(_HEADER), add=items(_HEADER), remove=strings)
_PATH_CHANGE = record(type=string, replaceFullPath=string, replacePrefixMatch=string)
_FILTER = record(
    type=string,
    requestHeaderModifier=_HEADER_CHANGE,
    responseHeaderModifier=_HEADER_CHANGE,
    requestRedirect=record(scheme=string, hostname=string, port=integer, statusCode=integer, path=_PATH_CHANGE),
    urlRewrite=record(hostname=string, path=_PATH_CHANGE),
    extensionRef=record(group=string, kind=string, name=string),
)
_ROUTE_STATUS = record(parents=items(record(parentRef=_PARENT_REF)))


def _route(match: Check = anything, **rule: Check) -> Check:
    return _object(
        spec=record(
            parentRefs=items(_PARENT_REF),
            hostnames=strings,
            rules=items(record(rule, name=string, matches=match, backendRefs=items(_BACKEND_REF))),
        ),
        status=_ROUTE_STATUS,
    )


_HTTP_MATCH = items(
    record(
        path=record(type=string, value=string),
        headers=items(_VALUE_MATCH),
        queryParams=items(_VALUE_MATCH),
        method=string,
    )
)
_GRPC_MATCH = items(record(method=record(type=string, service=string, method=string), headers=items(_VALUE_MATCH)))
_GATEWAY = _object(
    spec=record(
        gatewayClassName=string,
        listeners=items(
            record(
                name=string,
                hostname=string,
                port=integer,
                protocol=string,
                tls=record(
                    mode=string,
                    certificateRefs=items(record(group=string, kind=string, name=string, namespace=string)),
                ),
            )
        ),
    ),
    status=record(
        listeners=items(
            record(
                name=string,
                conditions=items(record(type=string, status=string, reason=string, observedGeneration=integer)),
            )
        )
    ),
)
_GRANT = _object(
    spec=record(
        **{"from": items(record(group=string, kind=string, namespace=string))},
        to=items(record(group=string, kind=string, name=string)),
    )
)
_TLS_POLICY = _object(
    spec=record(
        targetRefs=items(record(group=string, kind=string, name=string, sectionName=string)),
        validation=record(hostname=string, caCertificateRefs=items(record(group=string, kind=string, name=string))),
        options=texts,
    )
)
_INGRESS_CLASS = _object(
    spec=record(
        controller=string,
        parameters=record(apiGroup=string, kind=string, name=string, namespace=string, scope=string),
    )
)
_CUSTOM_ENTITY = _object(
    spec=record(
        type=string,
        controllerName=string,
        fields=anything,
        parentRef=record(group=string, kind=string, name=string, namespace=string),
    )
)
_VAULT = _object(spec=record(backend=string, prefix=string, description=string, config=anything))
_FACADE = _object(spec=record(backendRef=record(name=string, port=integer)))

_BETA = frozenset({"v1beta1"})

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("Ingress", "networking.k8s.io", "v1", _INGRESS),
        Kind("IngressClass", "networking.k8s.io", "v1", _INGRESS_CLASS, namespaced=False),
        Kind("Service", "", "v1", _SERVICE),
        Kind("Secret", "", "v1", _object(data=texts)),
        Kind("ConfigMap", "", "v1", _object(data=texts)),
        Kind("EndpointSlice", "discovery.k8s.io", "v1", _SLICE),
        Kind("KongPlugin", KONG, "v1", _PLUGIN),
        Kind("KongClusterPlugin", KONG, "v1", _PLUGIN, namespaced=False),
        Kind("KongConsumer", KONG, "v1", _CONSUMER),
        Kind("KongIngress", KONG, "v1", _KONG_INGRESS),
        Kind("KongConsumerGroup", KONG, "v1beta1", _object()),
        Kind("KongUpstreamPolicy", KONG, "v1beta1", _POLICY),
        Kind("TCPIngress", KONG, "v1beta1", _LAYER4),
        Kind("UDPIngress", KONG, "v1beta1", _LAYER4),
        Kind(
            "IngressClassParameters",
            KONG,
            "v1alpha1",
            _object(spec=record(serviceUpstream=boolean, enableLegacyRegexDetection=boolean)),
        ),
        Kind("KongVault", KONG, "v1alpha1", _VAULT, namespaced=False),
        Kind("KongCustomEntity", KONG, "v1alpha1", _CUSTOM_ENTITY),
        Kind(
            "KongLicense",
            KONG,
            "v1alpha1",
            _object(rawLicenseString=string, enabled=boolean),
            namespaced=False,
        ),
        Kind("KongServiceFacade", INCUBATOR, "v1alpha1", _FACADE),
        Kind(
            "GatewayClass",
            GATEWAY,
            "v1",
            _object(spec=record(controllerName=string)),
            namespaced=False,
            also=_BETA,
        ),
        Kind("Gateway", GATEWAY, "v1", _GATEWAY, also=_BETA),
        Kind(
            "HTTPRoute",
            GATEWAY,
            "v1",
            _route(
                _HTTP_MATCH,
                filters=items(_FILTER),
                timeouts=record(request=string, backendRequest=string),
            ),
            also=_BETA,
        ),
        Kind("GRPCRoute", GATEWAY, "v1", _route(_GRPC_MATCH), also=frozenset({"v1alpha2"})),
        Kind("TCPRoute", GATEWAY, "v1alpha2", _route()),
        Kind("UDPRoute", GATEWAY, "v1alpha2", _route()),
        Kind("TLSRoute", GATEWAY, "v1alpha2", _route(), also=frozenset({"v1alpha3"})),
        Kind("ReferenceGrant", GATEWAY, "v1beta1", _GRANT, also=frozenset({"v1", "v1alpha2"})),
        Kind("BackendTLSPolicy", GATEWAY, "v1alpha3", _TLS_POLICY, also=frozenset({"v1"})),
    )
}
"""By kind name; the names are unique over the groups."""


class Unusable(ValueError):
    """An object cannot be used at all; ``reason`` is one of the problem reasons."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def recognise(value: Any) -> Kind | None:
    """Return the kind of an object, None where it is somebody else's; Unusable where it should have been ours."""
    if not isinstance(value, dict):
        raise Unusable("Malformed", "A Kubernetes object must be an object.")
    name, api_version = value.get("kind"), value.get("apiVersion")
    if not isinstance(name, str) or not isinstance(api_version, str):
        raise Unusable("Malformed", "A Kubernetes object must name its kind and apiVersion as strings.")
    group, _, version = api_version.rpartition("/")
    kind = KINDS.get(name)
    if kind is not None and kind.group == group:
        if version != kind.version and version not in kind.also:
            raise Unusable("UnsupportedVersion", f"apiVersion {api_version} is not read; use {kind.api_version}.")
        return kind
    if group in OWN_GROUPS:
        raise Unusable("UnsupportedVersion", f"The kind {name} of {api_version} is not read.")
    return None


def check_shape(kind: Kind, value: dict[str, Any]) -> None:
    """Raise Unusable where a field that a rule reads has the wrong type."""
    try:
        kind.check(value)
    except Malformed as error:
        raise Unusable("Malformed", f"The field {error}.") from error
    metadata = value.get("metadata") or {}
    if not metadata.get("name"):
        raise Unusable("Malformed", "The field metadata.name must be set.")
