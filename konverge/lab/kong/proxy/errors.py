"""Answers that the proxy makes itself, in the format that the client accepts (``kong/pdk/response.lua``)."""

from __future__ import annotations

import html

import orjson

JSON = "application/json; charset=utf-8"

MESSAGES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    411: "Length required",
    413: "Payload too large",
    417: "Expectation failed",
    426: "Upgrade required",
    429: "API rate limit exceeded",
    494: "Request header or cookie too large",
    500: "An unexpected error occurred",
    502: "An invalid response was received from the upstream server",
    503: "The upstream server is currently unavailable",
    504: "The upstream server is timing out",
}

HTML = """<!doctype html>
<html>
  <head>
    <meta charset="utf-8">
    <title>Error</title>
  </head>
  <body>
    <h1>Error</h1>
    <p>{message}.</p>
    <p>request_id: {request_id}</p>
  </body>
</html>
"""
XML = """<?xml version="1.0" encoding="UTF-8"?>
<error>
  <message>{message}</message>
  <requestid>{request_id}</requestid>
</error>
"""


def choose_type(accept: str | None) -> str:
    """Return the media type of an error for an Accept field; the best weighted known one wins, JSON otherwise."""
    best, best_weight = "application/json", 0.0
    for part in (accept or "").split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        if media in ("application/json", "text/html", "text/plain", "application/xml") and weight > best_weight:
            best, best_weight = media, weight
    return best


def render_error(message: str, request_id: str, accept: str | None) -> tuple[bytes, str]:
    """Return (body, content type) of an error."""
    kind = choose_type(accept)
    if kind == "text/html":
        text = HTML.format(message=html.escape(message), request_id=request_id)
        return text.encode(), "text/html; charset=utf-8"
    if kind == "application/xml":
        text = XML.format(message=html.escape(message), request_id=request_id)
        return text.encode(), "application/xml; charset=utf-8"
    if kind == "text/plain":
        return f"{message}\nrequest_id: {request_id}\n".encode(), "text/plain; charset=utf-8"
    shown = orjson.dumps(message).decode()
    return f'{{\n  "message":{shown},\n  "request_id":"{request_id}"\n}}'.encode(), JSON
