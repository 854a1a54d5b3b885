"""The steps between decoding and validation of a custom resource."""

from __future__ import annotations

from konverge.lab.apiserver.custom.pruning import drop_nulls, fill_defaults, prune
from konverge.lab.apiserver.kinds import ResourceKind
from konverge.lab.apiserver.store import Object


def shape_custom(kind: ResourceKind, obj: Object) -> None:
    """Prune unknown fields and fill defaults, in place."""
    assert kind.custom is not None
    schema = kind.custom.schema
    prune(schema, obj)
    drop_nulls(schema, obj)
    fill_defaults(schema, obj)
