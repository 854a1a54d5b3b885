"""Counters of one proxy's traffic: what a configuration is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from konverge.model.base import Value


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests, 5xx answers among them, and latencies; either since a proxy started or within a span of time."""

    __pydantic_config__: ClassVar = Value.model_config

    requests: float = 0.0
    errors: float = 0.0
    """Answers with a status of 500 and more."""
    latency_count: float = 0.0
    """Requests whose latency was measured: Kong exports status codes and latencies by separate settings."""
    latency_ms: float = 0.0
    """The sum of their latencies in milliseconds."""

    def since(self, before: Counters) -> Counters:
        """Return what was counted since ``before``; a counter that went down started anew at zero in between."""
        if self.requests < before.requests or self.latency_count < before.latency_count:
            return self
        return Counters(
            self.requests - before.requests,
            max(self.errors - before.errors, 0.0),
            self.latency_count - before.latency_count,
            max(self.latency_ms - before.latency_ms, 0.0),
        )

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.requests + other.requests,
            self.errors + other.errors,
            self.latency_count + other.latency_count,
            self.latency_ms + other.latency_ms,
        )

    @property
    def error_share(self) -> float:
        """The share of 5xx answers, 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def mean_latency(self) -> float:
        """The mean latency in milliseconds."""
        return self.latency_ms / self.latency_count if self.latency_count else 0.0
