"""HTTPRoute filters to plugins of the Kong route."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field

from konverge.translate.drafts import Entity
from konverge.translate.kinds import KONG
from konverge.translate.problems import Object

REDIRECT_CODE = 302
"""What the API server puts where a redirect names no status code."""

REQUEST = "request-transformer"
RESPONSE = "response-transformer"


class FilterError(ValueError):
    """A filter cannot be carried out, so the route must not exist."""


@dataclass(slots=True)
class Transformer:
    """A request-transformer or response-transformer in the making; several filters share one."""

    headers: dict[str, list[str]] = field(default_factory=dict)
    uri: str = ""

    def add(self, action: str, items: Iterable[str]) -> None:
        """Add header items under add, append, replace or remove."""
        found = list(items)
        if found:
            self.headers.setdefault(action, []).extend(found)

    def config(self) -> Entity:
        """Return the plugin's configuration."""
        config: Entity = {action: {"headers": items} for action, items in self.headers.items()}
        if self.uri:
            config.setdefault("replace", {})["uri"] = self.uri
        return config


@dataclass(slots=True)
class Filtered:
    """What the filters of a rule come to."""

    plugins: list[Entity] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    """Names of KongPlugins."""
    replaces_prefix: bool = False
    """The paths of the route must capture what is behind the prefix."""
    prefix: str | None = None
    """Instead of the path of the match, the prefix to capture behind."""


def has_redirect(filters: Iterable[Object]) -> bool:
    """Tell whether a redirect is among the filters."""
    return any(item.get("type") == "RequestRedirect" for item in filters)


def rewrites_prefix(filters: Iterable[Object]) -> bool:
    """Tell whether a prefix is replaced."""
    return any(
        item.get("type") == "URLRewrite"
        and ((item.get("urlRewrite") or {}).get("path") or {}).get("type") == "ReplacePrefixMatch"
        for item in filters
    )


def apply_filters(filters: Iterable[Object], path: str, tags: list[str], use_redirect: bool) -> Filtered:
    """Return the plugins of filters for a match of ``path``; FilterError where one is not supported."""
    result = Filtered()
    transformers = {REQUEST: Transformer(), RESPONSE: Transformer()}
    others: list[Entity] = []
    for item in filters:
        kind = item.get("type") or ""
        if kind == "RequestHeaderModifier":
            _modify(transformers[REQUEST], item.get("requestHeaderModifier") or {})
        elif kind == "ResponseHeaderModifier":
            _modify(transformers[RESPONSE], item.get("responseHeaderModifier") or {})
        elif kind == "RequestRedirect":
            redirect = item.get("requestRedirect") or {}
            if use_redirect:
                others.append(_redirect(redirect))
            else:
                others.append(_terminate(redirect, transformers[RESPONSE], path))
        elif kind == "URLRewrite":
            _rewrite(item.get("urlRewrite") or {}, transformers[REQUEST], path, result)
        elif kind == "ExtensionRef":
            result.references.append(_extend(item.get("extensionRef") or {}))
        else:
            raise FilterError(f"httpFilter {kind} unsupported")
    plugins = [{"name": name, "config": item.config()} for name, item in transformers.items()]
    result.plugins = [
        {**plugin, "tags": tags} for plugin in (*others, *plugins) if plugin["config"] or plugin in others
    ]
    return result


def _items(headers: Iterable[Object]) -> list[str]:
    return [
        f"{header.get('name') or ''}:{header['value']}" if header.get("value") else header.get("name") or ""
        for header in headers
    ]


def _modify(transformer: Transformer, change: Object) -> None:
    overwritten = _items(change.get("set") or ())
    transformer.add("replace", overwritten)
    transformer.add("add", overwritten)
    transformer.add("append", _items(change.get("add") or ()))
    transformer.add("remove", change.get("remove") or ())


def _full_path(redirect: Object) -> str | None:
    path = redirect.get("path") or {}
    if path.get("type") != "ReplaceFullPath":
        return None
    return path.get("replaceFullPath") or ""


def _locate(redirect: Object, path: str) -> str:
    host = redirect.get("hostname")
    if not host:
        return path
    port = redirect.get("port")
    place = f"{host}:{port}" if port is not None else host
    return f"{redirect.get('scheme') or 'http'}://{posixpath.normpath(f'{place}/{path}')}"


def _redirect(redirect: Object) -> Entity:
    full = _full_path(redirect)
    config = {
        "status_code": redirect.get("statusCode") or REDIRECT_CODE,
        "location": _locate(redirect, "/" if full is None else full),
        "keep_incoming_path": full is None,
    }
    return {"name": "redirect", "config": config}


def _terminate(redirect: Object, response: Transformer, path: str) -> Entity:
    full = _full_path(redirect)
    response.add("add", [f"Location:{_locate(redirect, path if full is None else full)}"])
    return {
        "name": "request-termination",
        "config": {"status_code": redirect.get("statusCode") or REDIRECT_CODE},
    }


def _extend(reference: Object) -> str:
    if reference.get("group") != KONG or reference.get("kind") != "KongPlugin":
        raise FilterError(f"extensionRef {reference.get('group')}/{reference.get('kind')} unsupported")
    return reference.get("name") or ""


def _rewrite(rewrite: Object, transformer: Transformer, path: str, result: Filtered) -> None:
    if rewrite.get("hostname"):
        transformer.add("replace", [f"host:{rewrite['hostname']}"])
        transformer.add("add", [f"host:{rewrite['hostname']}"])
    change = rewrite.get("path") or {}
    kind = change.get("type")
    if kind == "ReplaceFullPath":
        transformer.uri = transformer.uri or change.get("replaceFullPath") or ""
    elif kind == "ReplacePrefixMatch":
        replacement = change.get("replacePrefixMatch")
        result.replaces_prefix = True
        if replacement is None:
            result.prefix = "/"
        transformer.uri = transformer.uri or _prefix_uri(replacement, path)
    elif kind is not None:
        raise FilterError(f"path modifier {kind} unsupported")


def trim_slash(path: str) -> str:
    """Return the path without one trailing slash; "/" for an empty or bare one."""
    trimmed = path.removesuffix("/")
    return trimmed or "/"


def _prefix_uri(replacement: str | None, path: str) -> str:
    """Return the uri template: the replacement, then what the path's regular expression captured."""
    if replacement is None:
        return "/"
    kept = replacement.removesuffix("/")
    root = trim_slash(path) == "/"
    if kept:
        if root:
            return f'{kept}$(uri_captures[1] == nil and "" or "/" .. uri_captures[1])'
        return f"{kept}$(uri_captures[1])"
    behind = '"/" .. uri_captures[1]' if root else "uri_captures[1]"
    return f'$(uri_captures[1] == nil and "/" or {behind})'


def capture_paths(path: str) -> list[str]:
    """Return the Kong paths that capture what is behind a prefix."""
    prefix = trim_slash(path)
    return ["~/$", "~/(.*)"] if prefix == "/" else [f"~{prefix}$", f"~{prefix}(/.*)"]
