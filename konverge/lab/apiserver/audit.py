"""A line of JSON per request, in the shape of audit events; bodies never go there."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import orjson

from konverge.lab.apiserver.clock import Clock
from konverge.lab.apiserver.requests import Request


class Audit:
    """Writes to a file, or nowhere."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._clock = clock
        self._file: BinaryIO | None = path.open("ab", buffering=0) if path is not None else None

    def note(self, request: Request, code: int, stage: str = "ResponseComplete") -> None:
        """Write a request that was answered; ``ResponseStarted`` is the stage of a watch or a stream that begins."""
        if self._file is None:
            return
        event = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Metadata",
            "stage": stage,
            "requestURI": request.path,
            "verb": request.verb,
            "user": {"username": request.user.name, "groups": request.user.groups},
            "userAgent": request.headers.get("User-Agent", ""),
            "objectRef": {
                "resource": request.plural,
                "namespace": request.namespace,
                "name": request.name,
                "apiGroup": request.group,
                "subresource": request.subresource,
            },
            "responseStatus": {"code": code},
            "stageTimestamp": self._clock.now().isoformat(),
        }
        self._file.write(orjson.dumps(event) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
