"""What the API server says of itself: requests by verb and resource, and watches that are open."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from konverge.kube.client import KubeClient

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE", "CREATE", "UPDATE", "DELETECOLLECTION", "APPLY"})
"""Verbs of requests that change something, as the counters name them."""
LINE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Reading:
    """The counters at one moment. ``own`` is how many of the requests the reader itself had sent."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(verb, resource) to number; resource "" stands for paths such as discovery."""
    watches: int = 0
    own: int = 0

    @property
    def total(self) -> int:
        """Requests of everybody but the reader."""
        return sum(self.requests.values()) - self.own

    @property
    def leases(self) -> int:
        """Requests for leases: the leader renews one all the time, whatever happens."""
        return sum(count for (_, resource), count in self.requests.items() if resource == "leases")

    @property
    def writes(self) -> int:
        """Requests that change something, without leases; the reader's are among them."""
        found = ((verb, resource, count) for (verb, resource), count in self.requests.items())
        return sum(count for verb, resource, count in found if verb in WRITES and resource not in ("leases", ""))

    def since(self, before: Reading) -> Counter[tuple[str, str]]:
        """Return what came since another reading."""
        return self.requests - before.requests


def parse(text: str, own: int) -> Reading:
    """Read the metrics of an API server; a real one names them alike."""
    reading = Reading(own=own)
    for line in text.splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        name, labels, value = found[1], dict(LABEL.findall(found[2])), float(found[3])
        if name == "apiserver_request_total":
            reading.requests[labels["verb"], labels["resource"]] += round(value)
        elif name == "apiserver_longrunning_requests" and labels["verb"] == "WATCH":
            reading.watches += round(value)
    return reading


async def read_counters(kube: KubeClient) -> Reading:
    """Ask the API server; the request that asks is counted by it only afterwards."""
    own = kube.requests
    return parse((await kube.request("GET", "/metrics", accept="text/plain")).decode(), own)
