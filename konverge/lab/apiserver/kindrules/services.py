"""Services, EndpointSlices and Ingresses: addresses, ports, paths."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from konverge.lab.apiserver.kindrules.base import Rules, check_unchanged, put_defaults
from konverge.lab.apiserver.metadata import SUBDOMAIN
from konverge.lab.apiserver.statuses import Cause, duplicate, required, unsupported, wrong
from konverge.lab.apiserver.store import Object

if TYPE_CHECKING:
    from konverge.lab.apiserver.state import State

SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PORT_RANGE = "must be between 1 and 65535, inclusive"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


class ServiceRules(Rules):
    """Cluster addresses and node ports are handed out at creation and stay."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        obj["status"] = {"loadBalancer": {}}
        self.default(obj)
        self._assign(state, spec)

    def _assign(self, state: State, spec: Object) -> None:
        if spec["type"] == "ExternalName":
            return
        if not spec.get("clusterIP"):
            spec["clusterIP"] = (spec.get("clusterIPs") or [""])[0] or state.allocator.pick_address()
        spec["clusterIPs"] = [spec["clusterIP"]]
        put_defaults(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
        if _needs_node_ports(spec):
            taken: set[int] = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
            for port in spec.get("ports") or ():
                if not port.get("nodePort"):
                    port["nodePort"] = state.allocator.pick_node_port(taken)
                    taken.add(port["nodePort"])

    @override
    def prepare_change(self, state: State, obj: Object, old: Object, subresource: str) -> None:
        spec, before = obj.setdefault("spec", {}), old["spec"]
        put_defaults(spec, type="ClusterIP")
        if "ExternalName" not in (spec["type"], before["type"]):
            if not spec.get("clusterIP"):
                spec["clusterIP"] = before.get("clusterIP")
                spec["clusterIPs"] = before.get("clusterIPs")
            elif spec.get("clusterIP") == before.get("clusterIP"):
                put_defaults(spec, clusterIPs=before.get("clusterIPs"))
            put_defaults(spec, ipFamilies=before.get("ipFamilies"), ipFamilyPolicy=before.get("ipFamilyPolicy"))
        ports = {(p.get("name"), p.get("port")): p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            known = ports.get((port.get("name"), port.get("port")))
            if known and not port.get("nodePort") and _needs_node_ports(spec):
                port["nodePort"] = known
        if not _needs_node_ports(spec) and _needs_node_ports(before):
            _drop_kept_ports(spec, set(ports.values()))
        self.default(obj)
        self._assign(state, spec)

    @override
    def default(self, obj: Object) -> None:
        spec = obj.setdefault("spec", {})
        put_defaults(spec, type="ClusterIP", sessionAffinity="None")
        if spec["sessionAffinity"] == "ClientIP":
            put_defaults(spec, sessionAffinityConfig={"clientIP": {"timeoutSeconds": 10800}})
        for port in spec.get("ports") or ():
            put_defaults(port, protocol="TCP")
            if port.get("targetPort") in (None, 0, ""):
                port["targetPort"] = port.get("port") or 0
        if spec["type"] in ("NodePort", "LoadBalancer"):
            put_defaults(spec, externalTrafficPolicy="Cluster")
        else:
            spec.pop("externalTrafficPolicy", None)
        if spec["type"] == "LoadBalancer":
            put_defaults(spec, allocateLoadBalancerNodePorts=True)
        else:
            spec.pop("allocateLoadBalancerNodePorts", None)
        if spec["type"] != "ExternalName":
            put_defaults(spec, internalTrafficPolicy="Cluster")

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj["spec"]
        if spec["type"] not in SERVICE_TYPES:
            return [unsupported("spec.type", spec["type"], SERVICE_TYPES)]
        if spec["type"] == "ExternalName":
            return [] if spec.get("externalName") else [required("spec.externalName")]
        headless = spec.get("clusterIP") == "None"
        causes = [] if spec.get("ports") or headless else [required("spec.ports")]
        causes += _check_ports(spec.get("ports") or [])
        if old is not None and old["spec"]["type"] != "ExternalName":
            if spec.get("clusterIPs") != old["spec"].get("clusterIPs"):
                causes.append(wrong("spec.clusterIPs[0]", spec.get("clusterIPs"), "may not change once set"))
        elif not headless and not state.allocator.is_free(spec["clusterIP"]):
            causes.append(_explain_address(state, spec["clusterIP"]))
        return causes

    @override
    def commit(self, state: State, obj: Object, old: Object | None) -> None:
        state.allocator.take(obj["spec"])


def _needs_node_ports(spec: Object) -> bool:
    wanted = spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    return spec.get("type") == "NodePort" or wanted


def _drop_kept_ports(spec: Object, known: set[int | None]) -> None:
    for port in spec.get("ports") or ():
        if port.get("nodePort") in known:
            port.pop("nodePort", None)


def _explain_address(state: State, address: str) -> Cause:
    if not state.allocator.covers(address):
        text = f"failed to allocate IP {address}: the provided network does not match the current range"
        return wrong("spec.clusterIPs", [address], text)
    return wrong("spec.clusterIPs", [address], f"failed to allocate IP {address}: provided IP is already allocated")


def _check_ports(ports: list[Object]) -> list[Cause]:
    causes: list[Cause] = []
    names: set[str] = set()
    numbers: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        field = f"spec.ports[{index}]"
        name = port.get("name") or ""
        if not name and len(ports) > 1:
            causes.append(required(f"{field}.name"))
        elif name and name in names:
            causes.append(duplicate(f"{field}.name", name))
        names.add(name)
        number = port.get("port") or 0
        if not 0 < number < 65536:
            causes.append(wrong(f"{field}.port", number, PORT_RANGE))
        target = port.get("targetPort")
        if isinstance(target, int) and not 0 < target < 65536:
            causes.append(wrong(f"{field}.targetPort", target, PORT_RANGE))
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            causes.append(unsupported(f"{field}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        if (number, port.get("protocol")) in numbers:
            causes.append(duplicate(field, {"port": number, "protocol": port.get("protocol")}))
        numbers.add((number, port.get("protocol")))
    return causes


class EndpointSliceRules(Rules):
    """Addresses of one family; none of them may be loopback unless the lab's switch allows it."""

    @override
    def default(self, obj: Object) -> None:
        for port in obj.get("ports") or ():
            put_defaults(port, name="", protocol="TCP")
        if obj.get("endpoints") is None:
            obj["endpoints"] = []

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        family = obj.get("addressType")
        if not family:
            causes.append(required("addressType"))
        elif family not in ("FQDN", "IPv4", "IPv6"):
            causes.append(unsupported("addressType", family, ("FQDN", "IPv4", "IPv6")))
        if old is not None:
            causes += check_unchanged("addressType", family, old.get("addressType"))
        loose = _own_loopback(state)
        for index, endpoint in enumerate(obj.get("endpoints") or ()):
            addresses = endpoint.get("addresses") or []
            if not addresses:
                causes.append(required(f"endpoints[{index}].addresses", "must contain at least 1 address"))
            for number, address in enumerate(addresses):
                if family in ("IPv4", "IPv6"):
                    causes += _check_address(address, f"endpoints[{index}].addresses[{number}]", family, loose)
        return causes


def _own_loopback(state: State) -> IPv4Network | None:
    """Return the loopback addresses that pods of this lab have; None where there are none."""
    return state.settings.loopback_range if state.settings.allow_loopback_endpoints else None


def _check_address(text: str, field: str, family: str, own: IPv4Network | None) -> list[Cause]:
    try:
        address = ip_address(text)
    except ValueError:
        return [wrong(field, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    wanted = IPv4Address if family == "IPv4" else IPv6Address
    if not isinstance(address, wanted):
        return [wrong(field, text, f"must be an {family} address")]
    if address.is_loopback and not (own is not None and isinstance(address, IPv4Address) and address in own):
        return [wrong(field, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_unspecified:
        return [wrong(field, text, f"may not be unspecified ({text})")]
    if address.is_link_local:
        return [wrong(field, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if address.is_multicast:
        return [wrong(field, text, "may not be in the multicast range (224.0.0.0/4, ff00::/10)")]
    return []


class EndpointsRules(Rules):
    """The older form of endpoints, kept for those who still read it."""

    @override
    def default(self, obj: Object) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                put_defaults(port, protocol="TCP")

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        causes = []
        loose = _own_loopback(state)
        for index, subset in enumerate(obj.get("subsets") or ()):
            for part in ("addresses", "notReadyAddresses"):
                for number, address in enumerate(subset.get(part) or ()):
                    ip = address.get("ip") or ""
                    family = "IPv6" if ":" in ip else "IPv4"
                    causes += _check_address(ip, f"subsets[{index}].{part}[{number}].ip", family, loose)
        return causes


class IngressRules(Rules):
    """Rules with hosts and paths; every path says how it matches."""

    @override
    def prepare_new(self, state: State, obj: Object) -> None:
        obj["status"] = {"loadBalancer": {}}
        spec = obj.setdefault("spec", {})
        annotated = CLASS_ANNOTATION in (obj["metadata"].get("annotations") or {})
        if not spec.get("ingressClassName") and not annotated:
            for entry in state.store.collection("networking.k8s.io/ingressclasses").entries():
                if (entry.object["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true":
                    spec["ingressClassName"] = entry.object["metadata"]["name"]

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj.get("spec") or {}
        causes: list[Cause] = []
        if not spec.get("rules") and not spec.get("defaultBackend"):
            causes.append(wrong("spec", spec, "either `defaultBackend` or `rules` must be specified"))
        annotation = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
        if old is None and annotation and spec.get("ingressClassName"):
            field = "annotations.kubernetes.io/ingress.class"
            causes.append(wrong(field, annotation, "can not be set when the class field is also set"))
        if spec.get("defaultBackend"):
            causes += _check_backend(spec["defaultBackend"], "spec.defaultBackend")
        for index, rule in enumerate(spec.get("rules") or ()):
            causes += _check_rule(rule, f"spec.rules[{index}]")
        return causes


def _check_rule(rule: Object, field: str) -> list[Cause]:
    causes: list[Cause] = []
    host = rule.get("host") or ""
    if host and not SUBDOMAIN.match(host.removeprefix("*.")):
        causes.append(wrong(f"{field}.host", host, "a lowercase RFC 1123 subdomain is needed"))
    if rule.get("http") is None:
        return causes
    paths = rule["http"].get("paths") or []
    if not paths:
        causes.append(required(f"{field}.http.paths"))
    for index, path in enumerate(paths):
        causes += _check_path(path, f"{field}.http.paths[{index}]")
    return causes


def _check_path(path: Object, field: str) -> list[Cause]:
    causes: list[Cause] = []
    kind, value = path.get("pathType"), path.get("path") or ""
    if not kind:
        causes.append(required(f"{field}.pathType", "pathType must be specified"))
    elif kind not in PATH_TYPES:
        causes.append(unsupported(f"{field}.pathType", kind, PATH_TYPES))
    elif kind != "ImplementationSpecific" or value:
        if not value.startswith("/"):
            causes.append(wrong(f"{field}.path", value, "must be an absolute path"))
        elif kind in ("Exact", "Prefix"):
            causes += [
                wrong(f"{field}.path", value, f"must not contain '{bad}'")
                for bad in ("//", "/./", "/../", "%2f", "%2F")
                if bad in value
            ]
    return causes + _check_backend(path.get("backend") or {}, f"{field}.backend")


def _check_backend(backend: Object, field: str) -> list[Cause]:
    service = backend.get("service")
    if service is None and backend.get("resource") is None:
        return [wrong(field, "", "must specify a service or resource backend")] if backend == {} else []
    if service is None:
        return []
    causes = [] if service.get("name") else [required(f"{field}.service.name")]
    port = service.get("port") or {}
    if not port.get("name") and not port.get("number"):
        causes.append(required(f"{field}.service.port", "port name or number is required"))
    elif port.get("name") and port.get("number"):
        causes.append(wrong(f"{field}.service.port", "", "cannot set both port name & port number"))
    elif port.get("number") and not 0 < port["number"] < 65536:
        causes.append(wrong(f"{field}.service.port.number", port["number"], PORT_RANGE))
    return causes


class IngressClassRules(Rules):
    """The controller's name may not change."""

    @override
    def check(self, state: State, obj: Object, old: Object | None) -> list[Cause]:
        spec = obj.get("spec") or {}
        causes = [] if spec.get("controller") else [required("spec.controller")]
        if old is not None:
            causes += check_unchanged(
                "spec.controller", spec.get("controller"), (old.get("spec") or {}).get("controller")
            )
        return causes
