"""The base of every value: frozen, camelCase on the wire, unknown fields kept out."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Value(BaseModel):
    """A frozen value; its JSON form is what Kubernetes stores."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", use_enum_values=False
    )

    def to_json(self) -> dict[str, Any]:
        """Return the camelCase JSON form without absent fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def replace(self, **changes: Any) -> Self:
        """Return a validated copy with fields exchanged."""
        return type(self).model_validate({**self.model_dump(), **changes})
