"""Structured log lines of the controller: each names the object it speaks of, for people or for machines.

An object in a message is written ``proxy NAMESPACE/NAME`` or ``fleet NAMESPACE/NAME``; in JSON it is a field of its
own as well, so that a log store finds every line about one pod.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

_OBJECT = re.compile(r"\b(proxy|fleet|lease|revision|Secret|ConfigRevision|ProxyFleet) ([\w.-]+(?:/[\w.-]+)?)")
_KUBERNETES = re.compile(r"^([A-Z]\w+)/([\w.-]*)/([\w.-]+): ")


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the object, and a trace where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        message = record.getMessage()
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            **find_object(message),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def find_object(message: str) -> dict[str, str]:
    """Return what a message speaks of, as ``{"object": "proxy", "name": "gateways/kong-1"}``; {} for nothing."""
    if found := _KUBERNETES.match(message):
        kind, namespace, name = found.groups()
        return {"object": kind, "name": f"{namespace}/{name}" if namespace else name}
    if found := _OBJECT.search(message):
        return {"object": found.group(1), "name": found.group(2)}
    return {}


def start_journal(style: LogFormat) -> None:
    """Write what the library logs, from INFO on, to stderr."""
    logger = logging.getLogger("konverge")
    logger.setLevel(logging.INFO)
    if style is LogFormat.JSON:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logger.handlers = [handler]
        logger.propagate = False
