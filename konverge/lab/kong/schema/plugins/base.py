"""What a plugin's schema is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from konverge.lab.kong.schema.fields import EntityCheck, Field


@dataclass(frozen=True, slots=True)
class PluginSchema:
    """The configuration of one plugin. ``fields`` of None: the schema is not known, any configuration goes."""

    name: str
    fields: Mapping[str, Field] | None = None
    checks: tuple[EntityCheck, ...] = ()
    """Checks over the whole plugin, with paths such as ``config.minute``."""
    config: Field | None = None
    """The ``config`` field, where it has checks of its own."""
    no: tuple[str, ...] = field(default=())
    """References this plugin may not have."""
