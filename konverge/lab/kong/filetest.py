"""The test of ``kong reload`` before it sends HUP: certificates, keys, bundles, with nginx's words.

Only the standard library, so that the command starts fast. What a real Kong does not notice (junk after a valid CA),
this does not notice either.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from konverge.lab.pod import PodEnvironment

BEGIN = "-----BEGIN CERTIFICATE-----"
END = "-----END CERTIFICATE-----"
LINE = re.compile(r"^\s*([A-Za-z0-9_]+)\s*=\s*(.*?)\s*$")


class BadConfiguration(Exception):
    """The configuration test fails; the text names the file."""


def read_conf(path: Path) -> dict[str, str]:
    """Return the settings of a kong.conf as KONG_* variables. Raises BadConfiguration."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadConfiguration(f"could not read {path}: {error.strerror}") from None
    found = (LINE.match(line.partition("#")[0]) for line in lines)
    return {f"KONG_{match[1].upper()}": match[2] for match in found if match is not None}


def check_files(environ: Mapping[str, str], pod: PodEnvironment) -> str:
    """Check the files of the Admin listener; return "". Raises BadConfiguration."""
    for name in ("ADMIN_SSL", "SSL"):
        cert = environ.get(f"KONG_{name}_CERT", "")
        key = environ.get(f"KONG_{name}_CERT_KEY", "")
        if cert and key:
            shown = f"{name.lower()}_cert"
            _check_pair(shown, pod.resolve_path(cert), pod.resolve_path(key), cert, key)
    bundle = environ.get("KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE", "")
    if environ.get("KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT", "off") != "off" and bundle:
        _check_bundle(pod.resolve_path(bundle), bundle)
    return ""


def _check_pair(name: str, cert: Path, key: Path, shown_cert: str, shown_key: str) -> None:
    for path, shown, label in ((cert, shown_cert, name), (key, shown_key, f"{name}_key")):
        if not path.is_file():
            raise BadConfiguration(f"{label}: failed loading certificate from {shown}")
    if BEGIN not in cert.read_text(errors="replace"):
        raise BadConfiguration(f"{name}: failed loading certificate from {shown_cert}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        reason = "key values mismatch" if "MISMATCH" in (error.reason or "") else (error.reason or str(error))
        raise BadConfiguration(
            f'nginx configuration is invalid: SSL_CTX_use_PrivateKey("{shown_key}") failed ({reason})'
        ) from None


def _check_bundle(path: Path, shown: str) -> None:
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise BadConfiguration(
            f'nginx configuration is invalid: SSL_load_verify_locations("{shown}") failed ({error.strerror})'
        ) from None
    if BEGIN not in text:
        raise BadConfiguration(
            f'nginx configuration is invalid: SSL_load_verify_locations("{shown}") failed '
            "(no certificate or crl found)"
        )
    if BEGIN in text[text.rfind(END) + len(END) :] if END in text else True:
        raise BadConfiguration(
            f'nginx configuration is invalid: SSL_load_verify_locations("{shown}") failed (bad end line)'
        )
    for block in re.findall(f"{BEGIN}.*?{END}", text, re.DOTALL):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=block)
        except (ssl.SSLError, ValueError) as error:
            raise BadConfiguration(
                f'nginx configuration is invalid: SSL_load_verify_locations("{shown}") failed ({error})'
            ) from None
