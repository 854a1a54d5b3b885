"""ProxyFleet: what an operator asks for, and what Konverge reports about it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from konverge.model.base import Value
from konverge.model.condition import Condition


class Analysis(Value):
    """When a wave's own metrics speak against a configuration; each is compared with the time before the push."""

    enabled: bool = Field(default=True, description="Judge each wave by the metrics of its proxies.")
    min_requests: int = Field(default=50, ge=1, description="Requests in a wave below which nothing is concluded.")
    max_error_increase: float = Field(
        default=0.05, ge=0, le=1, description="How much the share of 5xx answers may grow, 0 to 1."
    )
    max_latency_factor: float = Field(
        default=3.0, ge=1, description="How many times the mean latency of the baseline is let pass."
    )


class Rollout(Value):
    """How a new configuration reaches the proxies: a canary first, then growing waves."""

    canary: int = Field(default=1, ge=0, description="Proxies that get a new configuration first.")
    growth: float = Field(default=4.0, ge=1, description="How many times larger each wave is than the one before.")
    wave_size: int = Field(default=50, ge=1, description="Proxies in the largest wave.")
    concurrency: int = Field(default=20, ge=1, description="Proxies pushed to at the same time.")
    soak_seconds: float = Field(default=0.0, ge=0, description="Seconds to watch a wave before the next one.")
    max_failures: int = Field(
        default=0, ge=0, description="Proxies that may refuse in the canary or a wave before the sync stops."
    )
    on_harm: Literal["rollback", "hold"] = Field(
        default="rollback", description="What a harmful revision leads to: the last good one comes back, or a stop."
    )
    analysis: Analysis = Analysis()


class Issuer(Value):
    """Where the certificates of a fleet come from."""

    kind: Literal["built-in", "cert-manager", "secret"] = Field(
        default="built-in",
        description="built-in: an authority of the fleet's own; cert-manager: an Issuer of that name;"
        " secret: Secrets that somebody else fills.",
    )
    name: str = Field(default="", description="Name of the Issuer of cert-manager.")
    issuer_kind: Literal["Issuer", "ClusterIssuer"] = Field(
        default="Issuer", description="Kind of the Issuer of cert-manager."
    )


class KeyStoreSpec(Value):
    """Where the private keys of a fleet are kept at rest."""

    kind: Literal["secret", "sealed"] = Field(
        default="secret", description="secret: plain Secrets; sealed: SealedIdentity objects, envelope encrypted."
    )
    key_source: Literal["file", "environment", "vault"] = Field(
        default="file", description="Where the key encryption key of a sealed store comes from."
    )
    key_name: str = Field(
        default="", description="The file, the environment variable, or the name of Vault's transit key."
    )
    vault_address: str = Field(default="", description="https:// address of Vault for the key source vault.")


class Window(Value):
    """A time in which scheduled work may start."""

    days: tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...] = Field(
        default=(), description="Days on which the window opens; every day when empty."
    )
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="HH:MM at which it opens.")
    minutes: int = Field(default=1440, ge=1, le=10080, description="How long it stays open.")
    timezone: str = Field(default="UTC", description="IANA name of the time zone of `start`.")


class Identity(Value):
    """The certificates of a fleet: who issues them, how long they live, how they are brought into force."""

    leaf_hours: int = Field(default=24 * 30, ge=1, description="Lifetime of the leaves of controller and proxies.")
    authority_hours: int = Field(default=24 * 365, ge=2, description="Lifetime of the fleet's authority.")
    key_type: Literal["ecdsa-p256", "ed25519", "rsa-3072"] = "ecdsa-p256"
    issuer: Issuer = Issuer()
    store: KeyStoreSpec = KeyStoreSpec()
    reload: Literal["exec", "restart"] = Field(
        default="exec",
        description="How new files come into force: `kong reload` in each proxy, or a rolling restart.",
    )
    windows: tuple[Window, ...] = Field(
        default=(), description="When scheduled rotation may start; any time when empty. Emergencies do not wait."
    )


class FleetSpec(Value):
    """The desired fleet."""

    ingress_class: str = Field(default="kong", description="The ingress class whose objects are rendered.")
    features: dict[str, bool] = Field(default_factory=dict, description="KIC's feature gates by name.")
    replicas: int = Field(default=3, ge=0, description="Proxies that Konverge deploys.")
    image: str = Field(default="kong:3.9", description="Image of the proxies.")
    router_flavor: Literal["traditional", "traditional_compatible", "expressions"] = "traditional"
    mode: Literal["dbless", "db"] = Field(
        default="dbless",
        description="dbless: every proxy gets the whole configuration; db: the proxies share a database, which gets"
        " the difference.",
    )
    proxy_service: str = Field(description="The Service that carries the traffic of the fleet.")
    rollout: Rollout = Rollout()
    identity: Identity = Identity()
    history_limit: int = Field(
        default=10, ge=2, le=100, description="Revisions that are kept; current and last good always are."
    )
    drift: Literal["heal", "report"] = Field(
        default="heal", description="What happens to a proxy that has loaded something else: set right, or told."
    )
    runner: Literal["in-process", "prefect"] = Field(
        default="in-process", description="Who runs what the controller finds to do: itself, or Prefect deployments."
    )
    pinned_revision: int = Field(
        default=0, ge=0, description="The stored revision that is in force whatever the sources say; 0: none."
    )
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
