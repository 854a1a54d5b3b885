"""Counters of the balancer, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from konverge.lab.balancer.tables import Address, Rule


class Counts:
    """What happened to connections, by Service port and endpoint.

    Connections to a Service without endpoints are refused by the kernel and therefore not counted.
    """

    def __init__(self) -> None:
        self.connections: Counter[tuple[str, str, str]] = Counter()
        """Connections that reached their endpoint, by (service, port, endpoint)."""
        self.refused: Counter[tuple[str, str, str]] = Counter()
        """Connections whose endpoint did not take them: the client was reset."""
        self.resets: Counter[tuple[str, str, str]] = Counter()
        """Established connections that either side reset."""
        self.active: Counter[tuple[str, str, str]] = Counter()
        self.syncs: Counter[str] = Counter()
        """Times the rules were brought up to date, by tier."""
        self.bytes = 0

    def render(self) -> str:
        """Return the text that ``/metrics`` answers."""
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        by_endpoint: Mapping[str, tuple[str, Counter[tuple[str, str, str]]]] = {
            "lab_balancer_connections_total": ("counter", self.connections),
            "lab_balancer_refused_total": ("counter", self.refused),
            "lab_balancer_resets_total": ("counter", self.resets),
            "lab_balancer_connections_active": ("gauge", self.active),
        }
        for name, (kind, counter) in by_endpoint.items():
            yield f"# TYPE {name} {kind}"
            for (service, port, endpoint), count in sorted(counter.items()):
                yield f'{name}{{service="{service}",port="{port}",endpoint="{endpoint}"}} {count}'
        yield "# TYPE lab_balancer_syncs_total counter"
        for tier, count in sorted(self.syncs.items()):
            yield f'lab_balancer_syncs_total{{tier="{tier}"}} {count}'
        yield "# TYPE lab_balancer_bytes_total counter"
        yield f"lab_balancer_bytes_total {self.bytes}"


def label_of(rule: Rule, backend: Address) -> tuple[str, str, str]:
    """Return the labels under which a connection is counted."""
    return rule.service, rule.port, f"{backend[0]}:{backend[1]}"
