"""Field types that many schemas share (Kong's ``kong/db/schema/typedefs.lua``)."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from konverge.lab.kong.schema.fields import Field, boolean, integer, string, unordered
from konverge.lab.kong.schema.regexes import compile_problem

UTF8_NAME = re.compile(r"^[\w.\-~]*$")
HOST_LABEL = re.compile(r"^(?!-)[A-Za-z0-9_-]{1,63}(?<!-)$")
PATH_CHARACTERS = re.compile(r"^[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*$")
HTTP_TOKEN = re.compile(r"^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$")

HTTP_PROTOCOLS = ("grpc", "grpcs", "http", "https")
STREAM_PROTOCOLS = ("tcp", "tls", "tls_passthrough", "udp")
PROTOCOLS = HTTP_PROTOCOLS + STREAM_PROTOCOLS
MAX_TIMEOUT = 2147483646


def check_uuid(value: Any) -> str | None:
    """A UUID in its canonical form."""
    try:
        return None if len(value) == 36 and str(UUID(value)) == value.lower() else "expected a valid UUID"
    except ValueError:
        return "expected a valid UUID"


def host_type(text: str) -> str | None:
    """Return "ipv4", "ipv6", "name" or None for a host without a port (``utils.normalize_ip``)."""
    bare = text.strip("[]")
    try:
        return f"ipv{ipaddress.ip_address(bare).version}"
    except ValueError:
        pass
    if not text or len(text) > 253 or text.endswith("..") or text.startswith("."):
        return None
    return "name" if all(HOST_LABEL.match(label) for label in text.rstrip(".").split(".")) else None


def split_port(text: str) -> tuple[str, int | None] | None:
    """Return (host, port) of host[:port]; None where that is nonsense."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest and not (rest.startswith(":") and rest[1:].isdigit()):
            return None
        port = int(rest[1:]) if rest else None
    elif text.count(":") > 1:
        host, port = text, None
    else:
        host, colon, digits = text.partition(":")
        if colon and not digits.isdigit():
            return None
        port = int(digits) if colon else None
    if port is not None and port > 65535:
        return None
    return (host, port) if host_type(host) else None


def check_host(value: Any) -> str | None:
    """A host name or an address, without a port."""
    found = split_port(value)
    if found is None:
        return f"invalid value: {value}"
    return "must not have a port" if found[1] is not None else None


def check_host_or_port(value: Any) -> str | None:
    """A host name or an address, with or without a port."""
    return None if split_port(value) is not None else f"invalid value: {value}"


def check_wildcard_host(value: Any) -> str | None:
    """A host with at most one wildcard, at either end."""
    if "*" not in value:
        return check_host_or_port(value)
    if value.count("*") > 1:
        return "invalid wildcard: must have at most one wildcard"
    bare = value.partition(":")[0] if value.count(":") == 1 else value
    if not (bare.startswith("*.") or bare.endswith(".*")):
        return "invalid wildcard: must be placed at leftmost or rightmost label"
    probe = bare.replace("*", "wildcard")
    return None if host_type(probe) == "name" else f"invalid value: {value}"


def check_sni(value: Any) -> str | None:
    """A host name for SNI; a wildcard at either end."""
    kind = host_type(value.strip("*").strip("."))
    if kind in ("ipv4", "ipv6"):
        return "must not be an IP"
    if ":" in value:
        return "must not have a port"
    return check_wildcard_host(value)


def check_path(value: Any) -> str | None:
    """A path of a service: starts with a slash, no empty segments."""
    if not value.startswith("/"):
        return "should start with: /"
    if "//" in value:
        return "must not have empty segments"
    if not PATH_CHARACTERS.match(value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986 found)"
    return _check_encoding(value)


def _check_encoding(value: str) -> str | None:
    bad = re.search(r"%(?![0-9A-Fa-f]{2})", value)
    return f"invalid url-encoded value: '{value[bad.start() : bad.start() + 3]}'" if bad else None


def check_router_path(value: Any) -> str | None:
    """A path of a route: a prefix, or a regular expression after ``~``."""
    if value.startswith("~"):
        problem = compile_problem(value[1:])
        if problem is not None:
            return f"invalid regex: '{value[1:]}' (PCRE returned: {problem})"
        return None if value.startswith("~/") else "should start with: / (fixed path) or ~/ (regexed path)"
    if not value.startswith("/"):
        return "should start with: / (fixed path) or ~/ (regexed path)"
    if "//" in value:
        return "must not have empty segments"
    if not PATH_CHARACTERS.match(value):
        return f"invalid path: '{value}' (characters outside of the reserved list of RFC 3986 found)"
    return _check_encoding(value)


def check_utf8_name(value: Any) -> str | None:
    """A name: letters, digits and . - _ ~ in ASCII, anything else in UTF-8."""
    for character in value:
        if ord(character) < 128 and not UTF8_NAME.match(character):
            return f"invalid value '{value}': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
    return None


def check_tag(value: Any) -> str | None:
    """A tag: printable, without comma and slash."""
    if "," in value or "/" in value:
        return f"invalid tag '{value}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
    return None


def check_url(value: Any) -> str | None:
    """An absolute http(s) URL."""
    parts = urlsplit(value)
    if not parts.hostname:
        return "missing host in url"
    if parts.scheme not in ("http", "https"):
        return "missing scheme in url" if not parts.scheme else "value must be a valid url"
    return None


def check_header_name(value: Any) -> str | None:
    """A header name."""
    if HTTP_TOKEN.match(value):
        return None
    return f"bad header name '{value}', allowed characters are A-Z, a-z, 0-9, '_', and '-'"


def check_regex(value: Any) -> str | None:
    """A regular expression."""
    problem = compile_problem(value)
    return None if problem is None else f"not a valid regex: {value}"


def check_asterisk_or_regex(value: Any) -> str | None:
    """The origins of cors: ``*`` means all of them and is no regular expression."""
    return None if value == "*" else check_regex(value)


def check_ip_or_cidr(value: Any) -> str | None:
    """An address or a network."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return f"invalid ip or cidr range: '{value}'"
    return None


def check_method(value: Any) -> str | None:
    """An HTTP method in capitals."""
    return None if re.fullmatch(r"[A-Z]+", value) else f"invalid value: {value}"


def uuid_field(**options: Any) -> Field:
    """A UUID."""
    return string(validate=check_uuid, **options)


def identity() -> Field:
    """The primary key."""
    return uuid_field(auto="uuid")


def timestamp() -> Field:
    """Seconds since the epoch, filled in by Kong."""
    return integer(auto="now")


def host(**options: Any) -> Field:
    """A host name or an address."""
    return string(**({"validate": check_host} | options))


def port(**options: Any) -> Field:
    """A port number."""
    return integer(**({"between": (0, 65535)} | options))


def timeout(**options: Any) -> Field:
    """Milliseconds."""
    return integer(**({"between": (0, MAX_TIMEOUT)} | options))


def url(**options: Any) -> Field:
    """An absolute URL."""
    return string(validate=check_url, **options)


def header_name(**options: Any) -> Field:
    """A header name."""
    return string(validate=check_header_name, **options)


def tags() -> Field:
    """The tags of an entity."""
    return unordered(string(validate=check_tag))


def utf8_name(**options: Any) -> Field:
    """A name."""
    return string(validate=check_utf8_name, **options)


def sni(**options: Any) -> Field:
    """A server name."""
    return string(validate=check_sni, **options)


def protocols(**options: Any) -> Field:
    """The protocols a plugin acts on."""
    return unordered(string(one_of=PROTOCOLS), **options)


def http_method(**options: Any) -> Field:
    """An HTTP method."""
    return string(validate=check_method, **options)


def redis() -> dict[str, Field]:
    """The redis block of plugins that share state."""
    return {
        "host": host(),
        "port": port(default=6379),
        "timeout": timeout(default=2000),
        "username": string(),
        "password": string(len_min=0, secret=True),
        "database": integer(default=0),
        "ssl": boolean(required=True, default=False),
        "ssl_verify": boolean(required=True, default=False),
        "server_name": sni(),
    }
