"""Which endpoint a new connection goes to."""

from __future__ import annotations

import random

from konverge.lab.balancer.tables import Address, Rule


class Chooser:
    """Chooses at random (iptables mode) or in turn, and keeps a client's endpoint where the Service asks."""

    def __init__(self, in_turn: bool = False) -> None:
        self._in_turn = in_turn
        self._turns: dict[tuple[str, str], int] = {}
        self._kept: dict[tuple[str, str, str], tuple[Address, float]] = {}

    def choose(self, rule: Rule, client: str, moment: float) -> Address | None:
        """Return an endpoint, or None where there is none; ``moment`` is a monotonic time in seconds."""
        if not rule.backends:
            return None
        if rule.affinity is None:
            return self._next(rule)
        # kube-proxy keeps affinity per Service port.
        key = (rule.service, rule.port, client)
        held = self._kept.get(key)
        fresh = held is not None and held[1] > moment and held[0] in rule.backends
        address = held[0] if held is not None and fresh else self._next(rule)
        self._kept[key] = (address, moment + rule.affinity)
        return address

    def _next(self, rule: Rule) -> Address:
        if not self._in_turn:
            return random.choice(rule.backends)
        key = (rule.service, rule.port)
        turn = self._turns.get(key, random.randrange(len(rule.backends)))
        self._turns[key] = turn + 1
        return rule.backends[turn % len(rule.backends)]
