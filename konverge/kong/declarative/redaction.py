"""What must not be shown: keys, passwords, tokens, wherever they are in a configuration."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "{vault://redacted-value}"
"""What stands for a secret in a dump; the form is that of a reference, so the dump stays a valid configuration."""
HIDDEN = "(redacted)"
"""What stands for a secret in a text for people."""

_SECRET_FIELDS = {
    "certificates": ("key", "key_alt"),
    "licenses": ("payload",),
    "keyauth_credentials": ("key",),
    "basicauth_credentials": ("password",),
    "hmacauth_credentials": ("secret",),
    "jwt_secrets": ("secret",),
    "oauth2_credentials": ("client_secret",),
}
_DROPPED = {"keyauth_credentials": ("ttl",), "oauth2_credentials": ("client_type", "hash_secret")}
_CREDENTIALS = tuple(kind for kind in _SECRET_FIELDS if kind not in ("certificates", "licenses"))
_PLUGIN_OWNERS = ("services", "routes", "consumers", "consumer_groups")

_SENSITIVE = re.compile(
    r"secret|passw|passphrase|token(?!s?_(?:name|url|endpoint|type))|private|credential"
    r"|authorization|api_?key|(?:^|_)key$|signing|license|header_value|param_value",
    re.IGNORECASE,
)
_HARMLESS = re.compile(r"(?:names?|_in_(?:header|query|body)|hide_credentials|_type|_ttl|claims.*|_required)$")
_SECRET_HEADER = re.compile(
    r"^\s*(?:(?:proxy-)?authorization|cookie|set-cookie|[\w-]*(?:api-?key|token|secret|password)[\w-]*)\s*:",
    re.IGNORECASE,
)
_USER = re.compile(r"(://)[^/@\s]{1,500}@")
MAX_HEADER_NAME = 256
"""Characters at the start of a text in which a header's name is looked for."""


def is_sensitive(name: str) -> bool:
    """Tell whether a field of a plugin's or vault's configuration must not be shown, by its name."""
    return _SENSITIVE.search(name) is not None and _HARMLESS.search(name) is None


def is_secret_field(kind: str, path: tuple[str, ...]) -> bool:
    """Tell whether a field of an entity must not be shown."""
    if path and path[0] in _SECRET_FIELDS.get(kind, ()):
        return True
    return any(is_sensitive(name) for name in path[1:]) if path[:1] == ("config",) else False


def is_secret_text(value: Any) -> bool:
    """Tell whether a text carries a secret by itself: a header with a credential, or a private key."""
    if not isinstance(value, str):
        return False
    return "PRIVATE KEY-----" in value or _SECRET_HEADER.match(value[:MAX_HEADER_NAME]) is not None


def hide_user(text: str) -> str:
    """Return a text without user names and passwords in URLs."""
    return _USER.sub(r"\1redacted@", text) if "@" in text else text


def redact(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a configuration that can be shown; keys of key-auth become their hashes."""
    return {kind: _redact_list(kind, value) for kind, value in document.items()}


def _redact_list(kind: str, value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [_redact_entity(kind, item) if isinstance(item, Mapping) else item for item in value]


def _redact_entity(kind: str, entity: Mapping[str, Any]) -> dict[str, Any]:
    result = {name: value for name, value in entity.items() if name not in _DROPPED.get(kind, ())}
    for name in _SECRET_FIELDS.get(kind, ()):
        if result.get(name) is not None:
            result[name] = _hide(kind, result[name])
    for name in ("routes", "plugins", *_CREDENTIALS):
        if kind in (*_PLUGIN_OWNERS, "services") and name in result:
            result[name] = _redact_list(name, result[name])
    if "config" in result:
        result["config"] = _redact_config(result["config"])
    return result


def _hide(kind: str, value: Any) -> str:
    if kind == "keyauth_credentials":
        return f"{{vault://{hashlib.sha256(str(value).encode()).hexdigest()[:32]}}}"
    return REDACTED


def _redact_config(value: Any, name: str = "") -> Any:
    if name and is_sensitive(name) and not isinstance(value, (bool, type(None))):
        return value if isinstance(value, str) and value.startswith("{vault://") else REDACTED
    if isinstance(value, Mapping):
        return {key: _redact_config(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_config(item) for item in value]
    if is_secret_text(value):
        return REDACTED
    return hide_user(value) if isinstance(value, str) else value


def show(kind: str, path: tuple[str, ...], value: Any) -> str:
    """Return a value for people: short, on one line, and hidden where it is a secret."""
    if value is None:
        return "(not set)"
    if is_secret_field(kind, path):
        return HIDDEN
    shown = _redact_config(value) if isinstance(value, (Mapping, list)) else value
    if is_secret_text(shown):
        return HIDDEN
    text = _compact(shown)
    if kind in ("certificates", "ca_certificates") and path[:1] == ("cert",):
        return f"certificate {hashlib.sha256(text.encode()).hexdigest()[:12]}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


MAX_SHOWN = 120
"""Characters of a value in a difference."""


def _compact(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_compact(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_compact(item)}" for key, item in value.items()) + "}"
    return hide_user(str(value)).replace("\n", "\\n")
