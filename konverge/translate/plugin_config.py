"""The configuration of a KongPlugin or KongClusterPlugin: inline, patched from Secrets, or taken from one."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import yaml

from konverge.translate.problems import Object
from konverge.translate.service_tls import read_secret
from konverge.translate.store import Scope

MAX_TEXT = 1 << 20
"""Bytes of a Secret's value; Kubernetes does not store larger ones."""


class ConfigError(ValueError):
    """The configuration cannot be built. The message never shows a value of a Secret."""


def build_config(kind: str, plugin: Object, scope: Scope) -> Any:
    """Return the configuration of a plugin; ConfigError where a Secret, patch or text is unusable."""
    config = plugin.get("config")
    if config is None:
        config = {}
    patches = plugin.get("configPatches") or ()
    if patches:
        config = copy.deepcopy(config)
    for patch in patches:
        content = _read(kind, plugin, patch.get("valueFrom"), scope)
        config = add(config, patch.get("path") or "", _parse_json(content))
    source = plugin.get("configFrom")
    if source:
        if config:
            raise ConfigError("config and configFrom are both given")
        config = _parse(_read(kind, plugin, source, scope))
    if not isinstance(config, dict):
        raise ConfigError("the configuration is no object")
    return config


def _read(kind: str, plugin: Object, source: Object | None, scope: Scope) -> bytes:
    reference = (source or {}).get("secretKeyRef") or {}
    name, key = reference.get("name") or "", reference.get("key") or ""
    if kind == "KongPlugin":
        namespace = plugin["metadata"].get("namespace") or ""
    else:
        namespace = reference.get("namespace") or ""
    secret = scope.get("Secret", namespace, name)
    if secret is None:
        raise ConfigError(f"Secret {namespace}/{name} does not exist")
    content = read_secret(secret, key)
    if content is None:
        raise ConfigError(f"Secret {namespace}/{name} has no key {key!r}")
    return content


def _parse_json(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise ConfigError("the value of a patch is no JSON") from None


def _parse(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        pass
    try:
        text = content[:MAX_TEXT].decode()
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise ConfigError("the value of configFrom uses YAML aliases")
        # What JSON cannot express (dates, binary) must not get into the document.
        return orjson.loads(orjson.dumps(yaml.safe_load(text)))
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("the value of configFrom is neither JSON nor YAML") from None


def add(document: Any, path: str, value: Any) -> Any:
    """Return the document after a JSON Patch ``add`` (RFC 6902) that also makes the missing parents."""
    if path == "":
        return value
    if not path.startswith("/"):
        raise ConfigError(f"the path {path!r} of a patch must be empty or start with a slash")
    steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    parent = document
    for step in steps[:-1]:
        parent = _descend(parent, step, path)
    _place(parent, steps[-1], value, path)
    return document


def _descend(parent: Any, step: str, path: str) -> Any:
    if isinstance(parent, dict):
        child = parent.get(step)
        if child is None:
            child = parent[step] = {}
        return child
    if isinstance(parent, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(parent):
        return parent[int(step)]
    raise ConfigError(f"the path {path!r} of a patch leads nowhere")


def _place(parent: Any, step: str, value: Any, path: str) -> None:
    if isinstance(parent, dict):
        parent[step] = value
        return
    if isinstance(parent, list) and step == "-":
        parent.append(value)
        return
    if isinstance(parent, list) and step.isascii() and step.isdigit() and int(step[:9]) <= len(parent):
        parent.insert(int(step), value)
        return
    raise ConfigError(f"the path {path!r} of a patch leads nowhere")
