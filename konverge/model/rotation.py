"""Certificate rotation: what is asked for, its steps, what each did, and what is known about the certificates."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from konverge.model.base import Value


class RotationKind(StrEnum):
    """What is rotated."""

    AUTO = "auto"
    """Only what is due, begun or owed: a leaf after two thirds of its lifetime, an authority likewise."""
    LEAF = "leaf"
    AUTHORITY = "authority"
    EMERGENCY = "emergency"
    """An authority, or a certificate of it, is compromised: its access ends as early as the order allows."""


class RotationStep(StrEnum):
    """The steps of a rotation. A leaf rotation is REISSUE and SWITCH alone; an emergency takes REPLACE."""

    PREPARE = "prepare"
    """A successor of the authority is made and stored."""
    TRUST_BOTH = "trust-both"
    """Every proxy and the controller trust both authorities; proven with a certificate of the new one."""
    REISSUE = "reissue"
    """Every proxy shows a certificate of the issuer in force; proven by a handshake with each."""
    REPLACE = "replace"
    """TRUST_BOTH and REISSUE with one reload: the shortest way in which nobody meets a stranger."""
    SWITCH = "switch"
    """The controller shows its new certificate; every proxy lets it in."""
    RETIRE = "retire"
    """Nobody trusts the old authority any more; proven by a refusal from each proxy, of a resumed session too."""


class ProxyIdentity(Value):
    """What one proxy showed when it was asked. Authorities are named by their SHA-256 fingerprints."""

    proxy: str
    reachable: bool = True
    """Whether it answered at all; one that does not keeps, for all we know, what it had."""
    accepted: bool = False
    """Whether it let the controller's stored certificate in."""
    verified: bool = False
    """Whether its certificate holds against the controller's stored bundle and its name."""
    subject: str = ""
    issuer: str = ""
    authority: str = ""
    """Fingerprint of the known authority that issued what it shows; "" where it is none of ours."""
    serial: str = ""
    starts: datetime | None = None
    expires: datetime | None = None
    protocol: str = ""
    trusts: tuple[str, ...] = ()
    """Fingerprints of the authorities whose clients it lets in; proven with throw-away certificates."""
    excess: int = 0
    """How many authorities it names to its clients beyond those that are stored for it: retired ones."""
    seen: str = ""
    """What is wrong, in words; "" where nothing is."""


class ProxyWork(Value):
    """What one step did to one proxy; a row of the timeline."""

    proxy: str
    reloads: int = 0
    seconds: float = 0.0
    owes: bool = False
    """Out of reach: the proof is still to be given."""
    seen: str = ""
    """What was seen instead of the proof."""


class StepReport(Value):
    """What a step did. ``waiting``: it was not done, because proxies that are out of reach owe their proof."""

    step: RotationStep
    message: str
    seconds: float = 0.0
    waiting: bool = False
    proxies: tuple[ProxyWork, ...] = ()

    @property
    def owing(self) -> tuple[str, ...]:
        """The proxies whose proof is missing."""
        return tuple(work.proxy for work in self.proxies if work.owes)


class RotationState(StrEnum):
    """How a run of the rotation ended."""

    DONE = "done"
    NOTHING_DUE = "nothing-due"
    WAITING = "waiting"
    """Everything that can be done is done; the rest waits for proxies that are out of reach."""
    POSTPONED = "postponed"
    """Started by the schedule outside the fleet's maintenance windows."""


class RotationReport(Value):
    """What a run of the rotation did."""

    state: RotationState
    message: str = ""
    steps: tuple[StepReport, ...] = ()
    postponed_until: datetime | None = None

    @property
    def owing(self) -> tuple[str, ...]:
        """The proxies that still owe a proof at the end of the run."""
        return tuple(sorted(self.steps[-1].owing)) if self.steps else ()


class CertificateView(Value):
    """One certificate as it is shown to people; ``pod`` is set for one that a proxy was seen to show."""

    role: str
    subject: str
    issuer: str
    serial: str
    starts: datetime | None = None
    expires: datetime
    renew_at: datetime
    due: bool
    fingerprint: str = ""
    pod: str = ""
