"""Counters in the names of the real API server, as Prometheus text."""

from __future__ import annotations

from collections import Counter

from konverge.lab.apiserver.requests import Request

LONG = frozenset({"exec", "attach", "portforward", "log", "proxy"})


class Metrics:
    """Counts requests and the long ones that run now."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str, str, str, str, int]] = Counter()
        self.running: Counter[tuple[str, str]] = Counter()
        self.seconds: Counter[tuple[str, str]] = Counter()

    def count(self, request: Request, code: int) -> None:
        """Count an answered request."""
        verb = request.verb.upper() if request.is_resource else request.method
        scope = "resource" if request.name else ("namespace" if request.namespace else "cluster")
        key = (verb, request.group, request.version, request.plural, request.subresource, scope, code)
        self.requests[key] += 1

    def total(self, verb: str = "", resource: str = "", code: int = 0) -> int:
        """Return how many requests were answered; empty arguments match all."""
        return sum(
            count
            for key, count in self.requests.items()
            if verb.upper() in ("", key[0]) and resource in ("", key[3]) and code in (0, key[6])
        )

    def begin(self, request: Request) -> None:
        """Count a watch or a stream that starts."""
        self.running[_long_verb(request), request.plural] += 1

    def end(self, request: Request) -> None:
        """Take back a watch or a stream that ended."""
        self.running[_long_verb(request), request.plural] -= 1

    def expose(self) -> str:
        """Return the text form."""
        lines = [
            "# HELP apiserver_request_total Requests by verb, resource and code.",
            "# TYPE apiserver_request_total counter",
        ]
        for (verb, group, version, resource, sub, scope, code), count in sorted(self.requests.items()):
            lines.append(
                f'apiserver_request_total{{code="{code}",component="apiserver",dry_run="",group="{group}",'
                f'resource="{resource}",scope="{scope}",subresource="{sub}",verb="{verb}",'
                f'version="{version}"}} {count}'
            )
        lines += [
            "# HELP apiserver_longrunning_requests Watches and streams that run now.",
            "# TYPE apiserver_longrunning_requests gauge",
        ]
        for (verb, resource), count in sorted(self.running.items()):
            lines.append(f'apiserver_longrunning_requests{{resource="{resource}",verb="{verb}"}} {count}')
        lines += ["# TYPE apiserver_registered_watchers gauge"]
        for (verb, resource), count in sorted(self.running.items()):
            if verb == "WATCH":
                lines.append(f'apiserver_registered_watchers{{resource="{resource}"}} {count}')
        return "\n".join(lines) + "\n"


def _long_verb(request: Request) -> str:
    return "CONNECT" if request.subresource in LONG else "WATCH"
