"""Pure: the files that a Secret, ConfigMap, projected or downward API volume consists of."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from konverge.errors import RetryableError
from konverge.lab.kubelet.environment import field_value, resource_value

Object = dict[str, Any]
Payload = dict[str, tuple[bytes, int]]
"""Path inside the volume -> content and mode."""
DEFAULT_MODE = 0o644


class NotMountable(RetryableError):
    """A volume cannot be set up yet: something that it is made from is missing."""

    reason = "FailedMount"
    hint = "explanation/lab.md#kubelet"


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the content of volumes comes from; ``token`` gives a service account token that is valid now."""

    pod: Object
    pod_ip: str
    host_ip: str
    secret: Callable[[str], Object | None]
    config_map: Callable[[str], Object | None]
    tokens: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Token by the key of :func:`token_key`."""


def is_projected(volume: Object) -> bool:
    """Return whether the volume is made of files that follow API objects."""
    return any(kind in volume for kind in ("secret", "configMap", "projected", "downwardAPI"))


def volume_payload(volume: Object, origins: Origins) -> Payload:
    """Return the files of a volume; NotMountable names the missing object."""
    if "secret" in volume:
        source = {**volume["secret"], "name": volume["secret"].get("secretName")}
        return _keyed(source, origins.secret, "secret", source.get("defaultMode") or DEFAULT_MODE)
    if "configMap" in volume:
        source = volume["configMap"]
        return _keyed(source, origins.config_map, "configmap", source.get("defaultMode") or DEFAULT_MODE)
    if "downwardAPI" in volume:
        source = volume["downwardAPI"]
        return _downward(source, origins, source.get("defaultMode") or DEFAULT_MODE)
    payload: Payload = {}
    mode = volume["projected"].get("defaultMode") or DEFAULT_MODE
    for source in volume["projected"].get("sources") or ():
        payload.update(_source_payload(source, origins, mode))
    return payload


def _source_payload(source: Object, origins: Origins, mode: int) -> Payload:
    if source.get("secret"):
        return _keyed(source["secret"], origins.secret, "secret", mode)
    if source.get("configMap"):
        return _keyed(source["configMap"], origins.config_map, "configmap", mode)
    if source.get("downwardAPI"):
        return _downward(source["downwardAPI"], origins, mode)
    if source.get("serviceAccountToken"):
        request = source["serviceAccountToken"]
        token = origins.tokens.get(token_key(request))
        if token is None:
            account = origins.pod["spec"].get("serviceAccountName") or "default"
            raise NotMountable(f'failed to fetch token for serviceaccount "{account}"')
        # Readable for its owner only, as the kubelet writes it for a pod without fsGroup.
        return {request["path"]: (token, 0o600)}
    return {}


def token_key(request: Object) -> str:
    """Return what makes two token projections of a pod share one token."""
    return f"{request.get('audience') or ''}/{request.get('expirationSeconds') or 3600}"


def token_requests(volumes: list[Object]) -> dict[str, Object]:
    """Return the token projections of a pod's volumes by key."""
    found = {}
    for volume in volumes:
        for source in volume.get("projected", {}).get("sources") or ():
            if source.get("serviceAccountToken"):
                request = source["serviceAccountToken"]
                found[token_key(request)] = request
    return found


def _keyed(source: Object, lookup: Callable[[str], Object | None], kind: str, mode: int) -> Payload:
    item = lookup(str(source["name"]))
    if item is None:
        if source.get("optional"):
            return {}
        raise NotMountable(f'{kind} "{source["name"]}" not found')
    data = _contents(item, kind)
    if not source.get("items"):
        return {key: (value, mode) for key, value in data.items()}
    payload: Payload = {}
    for entry in source["items"]:
        if entry["key"] in data:
            payload[entry["path"]] = (data[entry["key"]], entry.get("mode") or mode)
        elif not source.get("optional"):
            raise NotMountable(f"references non-existent {kind} key: {entry['key']}")
    return payload


def _contents(item: Object, kind: str) -> dict[str, bytes]:
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    texts = {key: value.encode() for key, value in (item.get("data") or {}).items()}
    return texts | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}


def _downward(source: Object, origins: Origins, mode: int) -> Payload:
    payload: Payload = {}
    for entry in source.get("items") or ():
        if entry.get("fieldRef"):
            path = entry["fieldRef"]["fieldPath"]
            text = field_value(path, origins.pod, origins.pod_ip, origins.host_ip)
        else:
            reference = entry["resourceFieldRef"]
            text = resource_value(reference, _container(origins.pod, reference.get("containerName")))
        payload[entry["path"]] = (text.encode(), entry.get("mode") or mode)
    return payload


def _container(pod: Object, name: str | None) -> Object:
    return next((item for item in pod["spec"]["containers"] if item["name"] == name), {})
