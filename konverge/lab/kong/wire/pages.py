"""The pages that nginx makes itself, byte for byte."""

from __future__ import annotations

from konverge.lab.kong.wire.message import phrase

HTML = "text/html; charset=UTF-8"

NO_CERTIFICATE = "No required SSL certificate was sent"
BAD_CERTIFICATE = "The SSL certificate error"
PLAIN_ON_TLS = "The plain HTTP request was sent to HTTPS port"


def error_page(status: int) -> bytes:
    """Return nginx's page for a status (``server_tokens off``, no footer)."""
    title = f"{status} {phrase(status)}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    ).encode()


def refusal_page(text: str) -> bytes:
    """Return nginx's 400 page for what happened below HTTP (codes 494 to 497 internally)."""
    return (
        f"<html>\r\n<head><title>400 {text}</title></head>\r\n<body>\r\n<center><h1>400 Bad Request</h1></center>\r\n"
        f"<center>{text}</center>\r\n</body>\r\n</html>\r\n"
    ).encode()
