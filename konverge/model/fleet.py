"""ProxyFleet: what an operator asks for, and what Konverge reports about it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from konverge.model.base import Value
from konverge.model.condition import Condition


class Rollout(Value):
    """How a new configuration reaches the proxies: a canary first, then waves."""

    canary: int = Field(default=1, ge=0, description="Proxies that get a new configuration first.")
    wave_size: int = Field(default=50, ge=1, description="Proxies in each wave after the canary.")
    concurrency: int = Field(default=20, ge=1, description="Proxies pushed to at the same time.")
    soak_seconds: float = Field(default=0.0, ge=0, description="Seconds to watch a wave before the next one.")
    max_failures: int = Field(
        default=0, ge=0, description="Proxies that may refuse in the canary or a wave before the sync stops."
    )


class Identity(Value):
    """Lifetimes of the fleet's certificates, in hours."""

    leaf_hours: int = Field(default=24 * 30, ge=1, description="Lifetime of the leaves of controller and proxies.")
    authority_hours: int = Field(default=24 * 365, ge=2, description="Lifetime of the fleet's authority.")
    key_type: Literal["ecdsa-p256", "ed25519", "rsa-3072"] = "ecdsa-p256"


class FleetSpec(Value):
    """The desired fleet."""

    ingress_class: str = Field(default="kong", description="The ingress class whose objects are rendered.")
    features: dict[str, bool] = Field(default_factory=dict, description="KIC's feature gates by name.")
    replicas: int = Field(default=3, ge=0, description="Proxies that Konverge deploys.")
    image: str = Field(default="kong:3.9", description="Image of the proxies.")
    router_flavor: Literal["traditional", "traditional_compatible", "expressions"] = "traditional"
    proxy_service: str = Field(description="The Service that carries the traffic of the fleet.")
    rollout: Rollout = Rollout()
    identity: Identity = Identity()
    paused: bool = Field(default=False, description="While true nothing is pushed, rotated or onboarded.")


class Counts(Value):
    """Proxies of the fleet by state."""

    total: int = 0
    synced: int = 0
    drifted: int = 0
    quarantined: int = 0
    ready: int = 0


class FleetStatus(Value):
    """What Konverge observed last."""

    observed_generation: int = 0
    current_revision: int = 0
    current_hash: str = ""
    last_good_revision: int = 0
    last_good_hash: str = ""
    counts: Counts = Counts()
    last_sync: datetime | None = None
    last_run: str = Field(default="", description="URL of the last flow run.")
    conditions: tuple[Condition, ...] = ()


class Fleet(Value):
    """A ProxyFleet by name; knows the names of everything that belongs to it."""

    name: str
    namespace: str
    uid: str = ""
    spec: FleetSpec
    status: FleetStatus = FleetStatus()

    @property
    def deployment(self) -> str:
        """The Deployment of the proxies."""
        return f"{self.name}-gateway"

    @property
    def admin_service(self) -> str:
        """The headless Service through which proxies are discovered, unready ones included."""
        return f"{self.name}-gateway-admin"

    @property
    def controller(self) -> str:
        """The Deployment of the controller."""
        return f"{self.name}-controller"

    @property
    def proxy_secret(self) -> str:
        """The Secret that every proxy mounts: server certificate, key, client CA bundle."""
        return f"{self.name}-gateway-identity"

    @property
    def controller_secret(self) -> str:
        """The Secret with the controller's client certificate and the bundle it verifies proxies with."""
        return f"{self.name}-controller-identity"

    @property
    def authority_secret(self) -> str:
        """The Secret with the fleet's authority."""
        return f"{self.name}-authority"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the proxies; the selector of the Deployment and, after a migration, of the traffic."""
        return {"app.kubernetes.io/name": "konverge-gateway", "app.kubernetes.io/instance": self.name}
