"""Pure: the environment variables of a container, in the kubelet's order and with its rules."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from konverge.errors import Invalid

Object = dict[str, Any]
Lookup = Callable[[str], Object | None]
"""Finds a Secret or ConfigMap of the pod's namespace by name."""


class ConfigError(Invalid):
    """A container cannot be configured yet: a Secret, ConfigMap or key that it needs is missing."""

    reason = "CreateContainerConfigError"
    hint = "explanation/lab.md#kubelet"


@dataclass(frozen=True, slots=True)
class Sources:
    """What variables may be taken from."""

    pod: Object
    pod_ip: str
    host_ip: str
    secret: Lookup
    config_map: Lookup
    services: Iterable[Object] = ()
    api_host: str = ""
    api_port: str = ""


REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; an unknown name stays as it is and ``$$`` is an escaped dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[2], match[0])

    return REFERENCE.sub(replace, text)


def build_environment(container: Object, sources: Sources) -> dict[str, str]:
    """Return the variables of a container: services, then envFrom, then env; ConfigError for what is missing."""
    service_variables = _service_variables(sources)
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        result.update(_import_all(source, sources))
    for item in container.get("env") or ():
        name = item["name"]
        if item.get("valueFrom"):
            value = _value_from(item["valueFrom"], container, sources)
            if value is not None:
                result[name] = value
        else:
            result[name] = expand(str(item.get("value") or ""), {**service_variables, **result})
    return {**service_variables, **result}


def _import_all(source: Object, sources: Sources) -> dict[str, str]:
    reference, lookup, kind = source.get("configMapRef"), sources.config_map, "configmap"
    if source.get("secretRef"):
        reference, lookup, kind = source["secretRef"], sources.secret, "secret"
    assert reference is not None
    found = lookup(reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    prefix = source.get("prefix") or ""
    return {prefix + key: value for key, value in _texts(found).items()}


def _texts(source: Object) -> dict[str, str]:
    data = source.get("data") or {}
    if source.get("kind") == "Secret" or "type" in source:
        return {key: base64.b64decode(value).decode("utf-8", "replace") for key, value in data.items()}
    return dict(data)


def _value_from(origin: Object, container: Object, sources: Sources) -> str | None:
    if "fieldRef" in origin:
        return field_value(origin["fieldRef"]["fieldPath"], sources.pod, sources.pod_ip, sources.host_ip)
    if "resourceFieldRef" in origin:
        return resource_value(origin["resourceFieldRef"], container)
    secret = "secretKeyRef" in origin
    reference = origin["secretKeyRef" if secret else "configMapKeyRef"]
    found = (sources.secret if secret else sources.config_map)(reference["name"])
    kind = "secret" if secret else "configmap"
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    values = _texts(found)
    if reference["key"] not in values:
        if reference.get("optional"):
            return None
        where = f"{sources.pod['metadata']['namespace']}/{reference['name']}"
        raise ConfigError(f"couldn't find key {reference['key']} in {kind.title()} {where}")
    return values[reference["key"]]


def field_value(path: str, pod: Object, pod_ip: str, host_ip: str) -> str:
    """Return a field of the pod as the downward API gives it; ConfigError for a field that it does not know."""
    metadata, spec = pod["metadata"], pod["spec"]
    subscript = re.fullmatch(r"metadata\.(labels|annotations)\['([^']*)'\]", path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f'{key}="{_quote(str(pairs[key]))}"' for key in sorted(pairs))
    values = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
        "status.podIP": pod_ip,
        "status.podIPs": pod_ip,
    }
    if path not in values:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return str(values[path])


def _quote(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


NODE_CPU, NODE_MEMORY = "2", "4Gi"
"""What a container without limits is told, as the node's allocatable resources."""


def resource_value(reference: Object, container: Object) -> str:
    """Return a resource of the container in units of its divisor, rounded up."""
    section, _, name = str(reference["resource"]).partition(".")
    amounts = (container.get("resources") or {}).get(section) or {}
    fallback = {"cpu": NODE_CPU, "memory": NODE_MEMORY}.get(name, "0") if section == "limits" else "0"
    divisor = str(reference.get("divisor") or "1")
    return str(math.ceil(quantity(str(amounts.get(name, fallback))) / (quantity(divisor) or 1)))


SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text: str) -> float:
    """Read a Kubernetes quantity such as 250m or 64Mi."""
    match = re.fullmatch(r"([0-9.]+(?:[eE][0-9]+)?)([a-zA-Z]*)", text)
    if not match or (match[2] and match[2] not in SUFFIXES):
        raise ConfigError(f"{text!r} is no quantity")
    return float(match[1]) * SUFFIXES.get(match[2], 1)


def _service_variables(sources: Sources) -> dict[str, str]:
    variables: dict[str, str] = {}
    namespace = sources.pod["metadata"].get("namespace")
    if sources.pod["spec"].get("enableServiceLinks", True):
        for service in sources.services:
            address = service["spec"].get("clusterIP")
            metadata = service["metadata"]
            # The API server's own Service is added below, with an address that answers in the lab.
            own = metadata.get("namespace") == namespace and metadata["name"] != "kubernetes"
            if own and address and address != "None":
                variables.update(_links(service, address))
    if sources.api_host:
        variables.update(_links(_api_service(sources.api_port), sources.api_host))
    return variables


def _api_service(port: str) -> Object:
    ports = [{"name": "https", "port": int(port), "protocol": "TCP"}]
    return {"metadata": {"name": "kubernetes"}, "spec": {"ports": ports}}


def _links(service: Object, address: str) -> dict[str, str]:
    """Return the variables of one service, the old container-link ones included."""
    prefix = str(service["metadata"]["name"]).upper().replace("-", "_")
    ports = service["spec"].get("ports") or []
    variables: dict[str, str] = {}
    for index, port in enumerate(ports):
        number, protocol = str(port["port"]), str(port.get("protocol") or "TCP")
        url = f"{protocol.lower()}://{address}:{number}"
        if index == 0:
            variables |= {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": number}
            variables[f"{prefix}_PORT"] = url
        if port.get("name"):
            variables[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
        link = f"{prefix}_PORT_{number}_{protocol.upper()}"
        variables |= {link: url, f"{link}_PROTO": protocol.lower(), f"{link}_PORT": number}
        variables[f"{link}_ADDR"] = address
    return variables
