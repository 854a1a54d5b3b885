"""Annotations on Services and on route-like objects, and what they change in Kong services and routes.

An annotation that cannot be read never stops anything: it is ignored as the table in
``docs/reference/translation/annotations.md`` says, and the caller gets to know its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from konverge.translate.drafts import Entity
from konverge.translate.objects import PREFIX, split_list

Annotations = Mapping[str, str]

PROTOCOL = f"{PREFIX}/protocol"
PROTOCOLS = f"{PREFIX}/protocols"
REWRITE = f"{PREFIX}/rewrite"
PLUGINS = f"{PREFIX}/plugins"
HOST_HEADER = f"{PREFIX}/host-header"
TLS_VERIFY = f"{PREFIX}/tls-verify"
TLS_VERIFY_DEPTH = f"{PREFIX}/tls-verify-depth"
METHODS = f"{PREFIX}/methods"
SNIS = f"{PREFIX}/snis"
HOST_ALIASES = f"{PREFIX}/host-aliases"
HEADERS = f"{PREFIX}/headers."
HEADERS_SEPARATOR = f"{PREFIX}/headers-separator"
FORCE_SSL_REDIRECT = "ingress.kubernetes.io/force-ssl-redirect"
SERVICE_UPSTREAM = "ingress.kubernetes.io/service-upstream"

PROTOCOL_NAMES = frozenset({"http", "https", "grpc", "grpcs", "ws", "wss", "tls", "tcp", "tls_passthrough"})
REDIRECT_CODES = frozenset({301, 302, 307, 308, 426})

_INT = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LABEL = r"[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_SNI = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*(?:\.\*)?", re.ASCII)
_METHOD = re.compile(r"[A-Z]+", re.ASCII)
_PATH_HANDLING = re.compile(r"v\d", re.ASCII)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_INT64 = 2**63


def parse_int(text: str) -> int | None:
    """Return a signed 64-bit number as Go's ``strconv.Atoi`` reads it; None where it does not."""
    if not _INT.fullmatch(text) or len(text) > 20:
        return None
    number = int(text)
    return number if -_INT64 <= number < _INT64 else None


def parse_bool(text: str) -> bool | None:
    """Return what Go's ``strconv.ParseBool`` reads; None where it refuses."""
    return True if text in _TRUE else False if text in _FALSE else None


def is_sni(text: str) -> bool:
    """Tell whether a text is a valid server name."""
    return _SNI.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Tell whether a text is a host name, possibly with a wildcard at one end."""
    return _HOST.fullmatch(text) is not None


_SERVICE_INTS = tuple(
    (f"{PREFIX}/{name.replace('_', '-')}", name)
    for name in ("connect_timeout", "read_timeout", "write_timeout", "retries", "tls_verify_depth")
)


def has_ours(annotations: Annotations) -> bool:
    """Tell whether any annotation could change a Kong entity; most objects have none."""
    return any(key.startswith((PREFIX, "ingress.kubernetes.io/")) for key in annotations)


def override_service(entity: Entity, annotations: Annotations) -> bool:
    """Apply the annotations of one Service; False where its protocol is invalid and nothing was applied."""
    protocol = annotations.get(PROTOCOL)
    if protocol:
        if protocol not in PROTOCOL_NAMES:
            return False
        entity["protocol"] = protocol
    path = annotations.get(f"{PREFIX}/path")
    if path and path.startswith("/"):
        entity["path"] = path
    for key, field in _SERVICE_INTS:
        number = parse_int(annotations.get(key) or "")
        if number is not None:
            entity[field] = number
    verify = parse_bool(annotations.get(TLS_VERIFY) or "")
    if verify is not None:
        entity["tls_verify"] = verify
    return True


def override_route(entity: Entity, annotations: Annotations, expressive: bool) -> list[str]:
    """Apply the annotations of the source object to a route; returns the names of those that were ignored."""
    ignored = [name for name, apply in _COMMON if name in annotations and not apply(entity, annotations[name])]
    if not expressive:
        ignored += [name for name, apply in _MATCHING if name in annotations and not apply(entity, annotations[name])]
        _override_headers(entity, annotations)
        normalise_protocols(entity)
    return ignored


def normalise_protocols(entity: Entity) -> None:
    """Settle a route that mixes HTTP and gRPC for HTTP; no gRPC route may strip its path."""
    protocols = entity.get("protocols")
    if not protocols:
        return
    grpc = any("grpc" in protocol for protocol in protocols)
    http = any("http" in protocol or protocol not in PROTOCOL_NAMES for protocol in protocols)
    if grpc and http:
        entity["protocols"] = ["http", "https"]
    if grpc:
        entity.pop("strip_path", None)


def _flag(field: str) -> Callable[[Entity, str], bool]:
    def apply(entity: Entity, text: str) -> bool:
        lowered = text.lower()
        if lowered not in ("true", "false"):
            return False
        entity[field] = lowered == "true"
        return True

    return apply


def _buffering(field: str) -> Callable[[Entity, str], bool]:
    def apply(entity: Entity, text: str) -> bool:
        value = parse_bool(text.lower())
        if value is not None:
            entity[field] = value
        return value is not None

    return apply


def _force_ssl(entity: Entity, text: str) -> bool:
    if text != "true":
        return True
    entity["https_redirect_status_code"] = 302
    protocols = entity.get("protocols") or ()
    secure = ["grpcs"] if any("grpc" in protocol for protocol in protocols) else []
    if not secure or any("http" in protocol for protocol in protocols):
        secure.append("https")
    entity["protocols"] = secure
    return True


def _redirect_code(entity: Entity, text: str) -> bool:
    code = parse_int(text)
    if code not in REDIRECT_CODES:
        return False
    entity["https_redirect_status_code"] = code
    return True


def _protocols(entity: Entity, text: str) -> bool:
    protocols = split_list(text)
    if not protocols:
        return True
    if not PROTOCOL_NAMES.issuperset(protocols):
        return False
    entity["protocols"] = protocols
    return True


def _regex_priority(entity: Entity, text: str) -> bool:
    number = parse_int(text)
    if number is not None:
        entity["regex_priority"] = number
    return number is not None


def _methods(entity: Entity, text: str) -> bool:
    methods = [method.upper() for method in split_list(text)]
    if not methods:
        return True
    if not all(_METHOD.fullmatch(method) for method in methods):
        return False
    entity["methods"] = methods
    return True


def _snis(entity: Entity, text: str) -> bool:
    snis = split_list(text)
    if not all(is_sni(sni) for sni in snis):
        return False
    entity["snis"] = snis
    return True


def _host_aliases(entity: Entity, text: str) -> bool:
    aliases = split_list(text)
    if not all(is_host(alias) for alias in aliases):
        return False
    if aliases:
        entity["hosts"] = list(dict.fromkeys([*(entity.get("hosts") or ()), *aliases]))
    return True


def _path_handling(entity: Entity, text: str) -> bool:
    if not _PATH_HANDLING.search(text):
        return False
    entity["path_handling"] = text
    return True


def read_headers(annotations: Annotations) -> dict[str, list[str]]:
    """Return header name -> accepted values of the ``konghq.com/headers.NAME`` annotations."""
    separator = annotations.get(HEADERS_SEPARATOR) or ","
    headers = {}
    for key, text in annotations.items():
        if not key.startswith(HEADERS):
            continue
        values = [value for value in (part.strip() for part in (text or "").split(separator)) if value]
        if values and len(key) > len(HEADERS):
            headers[key[len(HEADERS) :]] = values
    return headers


def _override_headers(entity: Entity, annotations: Annotations) -> None:
    headers = read_headers(annotations)
    if headers:
        entity["headers"] = headers


def read_methods(annotations: Annotations) -> list[str]:
    """Return the valid methods of the annotation, upper-cased."""
    methods = [method.upper() for method in split_list(annotations.get(METHODS))]
    return [method for method in methods if _METHOD.fullmatch(method)]


def read_snis(annotations: Annotations) -> list[str]:
    """Return the valid server names of the annotation."""
    return [sni for sni in split_list(annotations.get(SNIS)) if is_sni(sni)]


Apply = Callable[[Entity, str], bool]

_COMMON: tuple[tuple[str, Apply], ...] = (
    (f"{PREFIX}/strip-path", _flag("strip_path")),
    (FORCE_SSL_REDIRECT, _force_ssl),
    (f"{PREFIX}/https-redirect-status-code", _redirect_code),
    (f"{PREFIX}/preserve-host", _flag("preserve_host")),
    (f"{PREFIX}/request-buffering", _buffering("request_buffering")),
    (f"{PREFIX}/response-buffering", _buffering("response_buffering")),
    (PROTOCOLS, _protocols),
)
_MATCHING: tuple[tuple[str, Apply], ...] = (
    (f"{PREFIX}/regex-priority", _regex_priority),
    (METHODS, _methods),
    (SNIS, _snis),
    (HOST_ALIASES, _host_aliases),
    (f"{PREFIX}/path-handling", _path_handling),
)
