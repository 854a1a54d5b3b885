"""What a lab is started with."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from konverge.errors import UsageError

HOME = "KONVERGE_LAB_HOME"
DEFAULT_NAME = "lab"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


def find_home() -> Path:
    """Return $KONVERGE_LAB_HOME, else konverge/lab in $XDG_STATE_HOME, else in ~/.local/state."""
    if os.environ.get(HOME):
        return Path(os.environ[HOME]).absolute()
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state else Path.home() / ".local" / "state"
    return base.absolute() / "konverge" / "lab"


class LabSettings(BaseModel):
    """Settings of one lab. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = DEFAULT_NAME
    home: Path = Field(default_factory=find_home)
    """Where all labs of a user are noted."""
    directory: Path | None = None
    """Where this lab keeps its files; by default under ``home``."""
    legacy: int = Field(default=0, ge=0)
    """Proxies of the legacy topology to start with."""
    sample: bool = False
    """Whether the sample applications are applied."""
    sync_delay: float = Field(default=1.0, ge=0)
    """See :class:`konverge.lab.balancer.settings.BalancerSettings`."""
    start_delay: float = Field(default=1.0, ge=0)
    """Between the decision to start a container and its process: sandbox, image, and Kong's own 1 to 2 s."""
    rbac: bool = True
    audit: bool = False
    """Whether the API server writes a line of JSON per request to ``audit.jsonl`` in its directory."""
    control_plane: Literal["lab", "real"] = "lab"
    kubeconfig: Path | None = None
    """Where a copy of the administrator's kubeconfig is put."""
    restart: bool = True
    """Whether a component that ends by itself is started again."""
    ready_timeout: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _check_name(self) -> Self:
        require_name(self.name)
        return self

    @property
    def place(self) -> Path:
        """The directory of the state and the lock of this lab."""
        return self.home / "labs" / self.name

    @property
    def files(self) -> Path:
        """The directory of everything that the components write."""
        return (self.directory or self.place / "files").absolute()


def require_name(name: str) -> None:
    """Raise UsageError where a name is not one of a lab."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"Lab name {name!r} is not 1 to 32 lower case letters, digits and dashes.",
            reason="BadLabName",
            hint="howto/lab.md#names",
        )
