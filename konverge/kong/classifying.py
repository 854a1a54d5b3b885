"""Reads the answer to ``POST /config`` and says what it means; no I/O.

The rules come from Kong's ``kong/api/routes/config.lua`` and ``kong/api/api_helpers.lua``, from nginx's
``ngx_http_special_response.c`` (495 and 496 are sent as 400) and from recorded answers of Kong 3.9.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import orjson

from konverge.kong.outcomes import (
    Busy,
    Exiting,
    IdentityCause,
    IdentityRefused,
    PushOutcome,
    Refused,
    SizeLimit,
    Stored,
    TooLarge,
    Unchanged,
    Unexpected,
    Unknown,
)
from konverge.kong.refusals import parse_refusal
from konverge.model.proxy import ZERO_HASH

INVALID_CONFIGURATION = 14
"""Kong's error code of an "invalid declarative configuration" (``kong/db/errors.lua``)."""
DEFAULT_RETRY = 10.0
"""Seconds after a 429 without a usable Retry-After; Kong sends at most this (``config.lua``)."""
SMALLEST_BUFFER = 8 * 1024
"""Bytes: nginx keeps a smaller body in memory on every platform (``client_body_buffer_size``)."""
SHOWN = 200
"""Characters of a foreign answer that are worth showing."""

_TITLE = re.compile(rb"<title>\s*(?:\d{3}\s+)?([^<]*?)\s*</title>", re.IGNORECASE)
_PAGES = {
    "no required ssl certificate was sent": IdentityCause.NOT_SENT,
    "the ssl certificate error": IdentityCause.UNDIAGNOSED,
    "the plain http request was sent to https port": IdentityCause.NO_TLS,
}
_UNREAD_BODY = ("expected a declarative configuration", "Cannot parse JSON body")


@lru_cache(maxsize=2)
def predict_hash(content: bytes) -> str:
    """Return the ``configuration_hash`` that Kong will report for these bytes sent as application/yaml.

    A configuration without any entity is reported as 32 zeros instead. The last two are remembered: the same bytes go
    to every proxy of a fleet, and the md5 of 1 MB takes as long as sending it.
    """
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def classify(
    status: int, headers: Mapping[str, str], body: bytes, *, content: bytes = b"", complete: bool = True
) -> PushOutcome:
    """Return what an answer means. ``body`` may be a prefix: of a 2xx answer 2 bytes suffice.

    ``headers`` has lower-case names. ``content`` is what was sent: it gives the hash and the Kubernetes
    objects behind a refusal. ``complete`` is false where the body ends early.
    """
    match status:
        case 201:
            return Stored(ZERO_HASH if body.strip() == b"{}" else predict_hash(content))
        case 304:
            return Unchanged(predict_hash(content))
        case 400 | 495 | 496:
            return _classify_bad_request(status, headers, body, content, complete)
        case 413:
            return TooLarge(SizeLimit.LMDB if _is_json(headers) else SizeLimit.BODY)
        case 429:
            return Busy(_retry_after(headers), _message(body))
        case 503 if _message(body) == "Kong currently exiting":
            return Exiting()
        case 200 | 408 | 499:
            return Unknown(f"The answer was HTTP {status}", status)
    if status >= 500:
        return Unknown(_message(body) or f"The answer was HTTP {status}", status)
    return Unexpected(status, _message(body) or _page(body))


def _classify_bad_request(
    status: int, headers: Mapping[str, str], body: bytes, content: bytes, complete: bool
) -> PushOutcome:
    page = _page(body)
    if cause := _PAGES.get(page.lower()):
        return IdentityRefused(cause, page)
    if status in (495, 496):
        return IdentityRefused(IdentityCause.UNDIAGNOSED, page)
    if not _is_json(headers):
        return Unexpected(status, page)
    document = _load(body)
    if document is None and complete:
        return Unexpected(status, "The body is not what its type says")
    if document and document.get("code") != INVALID_CONFIGURATION:
        message = str(document.get("message", ""))
        if message in _UNREAD_BODY and len(content) > SMALLEST_BUFFER:
            return TooLarge(SizeLimit.BODY_BUFFER)
    return parse_refusal(body, content) if document is not None else _salvage(body, content)


def _salvage(body: bytes, content: bytes) -> Refused:
    found = parse_refusal(body, content)
    return Refused(found.errors, found.document_errors, truncated=True)


def _is_json(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("application/json")


def _load(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _message(body: bytes) -> str:
    document = _load(body)
    return str(document.get("message", ""))[:SHOWN] if document else ""


def _page(body: bytes) -> str:
    title = _TITLE.search(body[:4096])
    return title.group(1).decode("utf-8", "replace")[:SHOWN] if title else ""


def _retry_after(headers: Mapping[str, str]) -> float:
    """Read Retry-After in both forms of RFC 9110 section 10.2.3; the rest of a lock may be a fraction of a second."""
    value = headers.get("retry-after", "").strip()
    if value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        at, since = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return DEFAULT_RETRY
    return max((_aware(at) - _aware(since)).total_seconds(), 0.0)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
