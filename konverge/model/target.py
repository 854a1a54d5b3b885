"""Which fleet on which cluster a verb works on; small, and free of secrets, so that it can be a flow parameter."""

from __future__ import annotations

from pydantic import Field

from konverge.model.base import Value


class Target(Value):
    """A fleet by name, and the kubeconfig (a path, never its content) and context that lead to its cluster."""

    fleet: str = Field(min_length=1, max_length=50)
    namespace: str = "default"
    kubeconfig: str | None = None
    context: str | None = None
