"""Faults that the balancer can be told to make."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from konverge.lab.balancer.tables import Address, Rule


class Fault(BaseModel):
    """What is done to the new connections of one Service or endpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    delay: float = Field(default=0.0, ge=0)
    """Seconds before the endpoint is dialled."""
    drop: bool = False
    """The endpoint never answers, as a node that lost its network."""
    reset_share: float = Field(default=0.0, ge=0, le=1)
    """The share of connections that are reset instead of being passed on."""


class Faults(BaseModel):
    """Every fault in force. Keys of ``targets`` are ``namespace/name``, ``IP`` or ``IP:port``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frozen: bool = False
    """Changes of Services and EndpointSlices are not taken over until this is off again."""
    targets: dict[str, Fault] = {}

    def of(self, rule: Rule, backend: Address) -> Fault | None:
        """Return the fault for a connection: an endpoint's before its Service's."""
        if not self.targets:
            return None
        names = (f"{backend[0]}:{backend[1]}", backend[0], rule.service)
        return next((self.targets[name] for name in names if name in self.targets), None)
