"""FleetMigration: the plan, the journal and the way back of one migration."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from konverge.model.base import Value


class Step(StrEnum):
    """The steps of a migration, in order."""

    DISCOVER = "discover"
    SNAPSHOT = "snapshot"
    DEPLOY = "deploy"
    SYNC = "sync"
    VERIFY = "verify"
    CONTROL = "control"
    SHIFT = "shift"
    DRAIN = "drain"
    FINISH = "finish"


class StepState(StrEnum):
    """What became of a step."""

    PENDING = "Pending"
    RUNNING = "Running"
    DONE = "Done"
    FAILED = "Failed"


class MigrationPhase(StrEnum):
    """What became of the migration."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"


class StepRecord(Value):
    """One line of the journal."""

    step: Step
    state: StepState = StepState.PENDING
    started: datetime | None = None
    finished: datetime | None = None
    message: str = ""

    @property
    def seconds(self) -> float | None:
        """How long the step took."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


class RollbackPoint(Value):
    """What has to be restored to be back at the legacy topology."""

    service: str
    selector: dict[str, str]
    replicas: int


class MigrationSpec(Value):
    """What the operator asked for."""

    fleet: str
    release: str
    deployment: str = Field(default="", description="Legacy Deployment; found by the release's labels when empty.")
    proxy_service: str = Field(default="", description="Service of the traffic; found by labels when empty.")
    soak_seconds: float = Field(default=2.0, ge=0, description="Seconds to watch each step of the shift.")
    drain_seconds: float = Field(default=120.0, ge=1, description="Longest wait for legacy connections to end.")
    image: str = "kong:3.9"
    controller_image: str = "konverge/konverge:0.1.0"


class MigrationStatus(Value):
    """How far it is, what was found and what leads back."""

    phase: MigrationPhase = MigrationPhase.PENDING
    steps: tuple[StepRecord, ...] = ()
    rollback_point: RollbackPoint | None = None
    evidence: dict[str, str] = Field(default_factory=dict)
    reason: str = ""
    message: str = ""
    run: str = Field(default="", description="URL of the flow run.")

    def record(self, step: Step) -> StepRecord:
        """Return the journal line of a step."""
        return next((r for r in self.steps if r.step == step), StepRecord(step=step))

    def with_record(self, record: StepRecord) -> MigrationStatus:
        """Return the status with one journal line exchanged; the order is that of the steps."""
        lines = {r.step: r for r in self.steps} | {record.step: record}
        return self.model_copy(update={"steps": tuple(lines[s] for s in Step if s in lines)})


class Migration(Value):
    """A FleetMigration by name."""

    name: str
    namespace: str
    uid: str = ""
    spec: MigrationSpec
    status: MigrationStatus = MigrationStatus()
