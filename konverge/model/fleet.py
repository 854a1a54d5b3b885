"""ProxyFleet: what an operator asks for, and what Konverge reports about it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from konverge.model.base import Value
from konverge.model.condition import Condition, Outcome
from konverge.model.rules import Rule, Ruled

SERVICE_NAME = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A name of a Service (RFC 1035 label)."""
LABEL_LENGTH = 63
ZONE_NAME = "^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
"""The shape of a name of the IANA time zone database."""


LONGEST_FLEET = 50
"""Characters of a fleet's name: what is named after it must fit into 63."""

FLEET_NAME = Rule(
    "metadata.name",
    f"self.metadata.name.size() <= {LONGEST_FLEET}",
    f"the name is longer than {LONGEST_FLEET} characters and would not fit into the names of what belongs to it;"
    " write a shorter one",
    lambda name: len(name) <= LONGEST_FLEET,
)
"""The one rule that is not about the spec; ``holds`` gets the name."""


PERCENTAGE = "^([1-9][0-9]?|100)%$"
"""A share of the whole, from 1% to 100%."""


def _require_share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("share", "that is neither a number nor a percentage; write 5, or 10%")
    return value


def _is_share(value: int | str) -> bool:
    return value >= 1 if isinstance(value, int) else re.fullmatch(PERCENTAGE, value) is not None


Share = Annotated[int | str, BeforeValidator(_require_share), WithJsonSchema({"x-kubernetes-int-or-string": True})]
"""What Kubernetes calls an IntOrString: a number, or a percentage of the whole."""


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


class Rollout(Ruled):
    """How a new configuration reaches the proxies: a canary first, then growing waves."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "canary",
            "self.canary <= self.waveSize",
            "the canary is larger than the largest wave; write a canary of at most waveSize",
            lambda rollout: rollout.canary <= rollout.wave_size,
        ),
    )

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


class Issuer(Ruled):
    """Where the certificates of a fleet come from."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "name",
            "self.kind != 'cert-manager' || (has(self.name) && self.name != '')",
            "kind cert-manager needs the name of an Issuer; write name: ISSUER, or kind: built-in",
            lambda issuer: issuer.kind != "cert-manager" or issuer.name != "",
        ),
    )

    kind: Literal["built-in", "cert-manager", "secret"] = Field(
        default="built-in",
        description="built-in: an authority of the fleet's own; cert-manager: an Issuer of that name;"
        " secret: Secrets that somebody else fills.",
    )
    name: str = Field(default="", description="Name of the Issuer of cert-manager.")
    issuer_kind: Literal["Issuer", "ClusterIssuer"] = Field(
        default="Issuer", description="Kind of the Issuer of cert-manager."
    )


class KeyStoreSpec(Ruled):
    """Where the private keys of a fleet are kept at rest."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "keyName",
            "self.kind != 'sealed' || (has(self.keyName) && self.keyName != '')",
            "a sealed store needs its key encryption key; write keySource: file, environment or vault and keyName:"
            " the file, the variable or Vault's transit key",
            lambda store: store.kind != "sealed" or store.key_name != "",
        ),
        Rule(
            "vaultAddress",
            "self.kind != 'sealed' || self.keySource != 'vault'"
            " || (has(self.vaultAddress) && self.vaultAddress.startsWith('https://'))",
            "the key source vault needs an address with TLS; write vaultAddress: https://HOST:8200",
            lambda store: (
                store.kind != "sealed" or store.key_source != "vault" or store.vault_address.startswith("https://")
            ),
        ),
    )

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
    vault_mount: str = Field(default="transit", description="Where Vault's transit engine is mounted.")
    vault_role: str = Field(
        default="",
        description="Vault's role for the service account; without one a token is taken from $VAULT_TOKEN.",
    )
    vault_auth: str = Field(default="kubernetes", description="Where Vault's Kubernetes authentication is mounted.")


class Window(Ruled):
    """A time in which scheduled work may start."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "timezone",
            f"self.timezone.matches('{ZONE_NAME}')",
            "that is no name of a time zone; write UTC or a name such as Europe/Berlin",
            lambda window: re.fullmatch(ZONE_NAME, window.timezone) is not None,
        ),
    )

    days: tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...] = Field(
        default=(), description="Days on which the window opens; every day when empty."
    )
    start: str = Field(default="00:00", pattern=r"^([01]\d|2[0-3]):[0-5]\d$", description="HH:MM at which it opens.")
    minutes: int = Field(default=1440, ge=1, le=10080, description="How long it stays open.")
    timezone: str = Field(default="UTC", max_length=64, description="IANA name of the time zone of `start`.")


class Identity(Ruled):
    """The certificates of a fleet: who issues them, how long they live, how they are brought into force."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "leafHours",
            "self.leafHours < self.authorityHours",
            "a leaf must not outlive its authority; write leafHours below authorityHours",
            lambda identity: identity.leaf_hours < identity.authority_hours,
        ),
        Rule(
            "reloadsAtOnce",
            "!has(self.reloadsAtOnce) || (type(self.reloadsAtOnce) == int ? self.reloadsAtOnce >= 1"
            f" : self.reloadsAtOnce.matches('{PERCENTAGE}'))",
            "that is no number of proxies; write a whole number from 1, or a percentage from 1% to 100%",
            lambda identity: _is_share(identity.reloads_at_once),
        ),
    )

    leaf_hours: int = Field(default=24 * 30, ge=1, description="Lifetime of the leaves of controller and proxies.")
    authority_hours: int = Field(default=24 * 365, ge=2, description="Lifetime of the fleet's authority.")
    key_type: Literal["ecdsa-p256", "ed25519", "rsa-3072"] = "ecdsa-p256"
    issuer: Issuer = Issuer()
    store: KeyStoreSpec = KeyStoreSpec()
    reload: Literal["exec", "restart"] = Field(
        default="exec",
        description="How new files come into force: `kong reload` in each proxy, or a rolling restart.",
    )
    reloads_at_once: Share = Field(
        default="10%",
        description="Proxies that are reloaded at the same time once a first one has proven the files: a number, or a"
        " percentage of the fleet (rounded down, at least 1). Never more than half of those that carry traffic.",
    )
    windows: tuple[Window, ...] = Field(
        default=(),
        max_length=32,
        description="When scheduled rotation may start; any time when empty. Emergencies do not wait.",
    )


class Database(Value):
    """The PostgreSQL database of proxies that Konverge deploys; only in mode db."""

    host: str = Field(default="", max_length=253, description="Host of the server; a Service's name will do.")
    port: int = Field(default=5432, ge=1, le=65535, description="Port of the server.")
    name: str = Field(default="kong", max_length=63, description="Name of the database.")
    user: str = Field(default="kong", max_length=63, description="User that the proxies connect as.")
    password_secret: str = Field(
        default="", max_length=253, description="Secret in the fleet's namespace whose key `password` is the user's."
    )
    tls: bool = Field(default=False, description="Connect over TLS and verify the server's certificate.")


class FleetSpec(Ruled):
    """The desired fleet."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "proxyService",
            f"self.proxyService.matches('{SERVICE_NAME}')",
            "that is no name of a Service; write the name of the Service that carries the traffic, without namespace"
            " and domain: lower-case letters, digits and dashes",
            lambda spec: re.fullmatch(SERVICE_NAME, spec.proxy_service) is not None,
        ),
        Rule(
            "ingressClass",
            "self.ingressClass != ''",
            "an empty ingress class would render nothing; write the name of an IngressClass, such as kong",
            lambda spec: spec.ingress_class != "",
        ),
        Rule(
            "image",
            "self.image.matches('^[^ ]+$')",
            "that is no image; write REPOSITORY:TAG or REPOSITORY@DIGEST, such as kong:3.9",
            lambda spec: re.fullmatch("[^ ]+", spec.image) is not None,
        ),
    )
    TRANSITIONS: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "mode",
            "self.mode == oldSelf.mode",
            "the mode of a living fleet cannot change: its proxies keep their configuration elsewhere; make a second"
            " ProxyFleet with the other mode and move the traffic",
            lambda pair: pair[0].mode == pair[1].mode,
        ),
    )

    ingress_class: str = Field(
        default="kong", max_length=253, description="The ingress class whose objects are rendered."
    )
    features: dict[str, bool] = Field(default_factory=dict, description="KIC's feature gates by name.")
    replicas: int = Field(default=3, ge=0, description="Proxies that Konverge deploys.")
    image: str = Field(default="kong:3.9", max_length=512, description="Image of the proxies.")
    router_flavor: Literal["traditional", "traditional_compatible", "expressions"] = "traditional"
    mode: Literal["dbless", "db"] = Field(
        default="dbless",
        description="dbless: every proxy gets the whole configuration; db: the proxies share a database, which gets"
        " the difference.",
    )
    database: Database = Database()
    proxy_service: str = Field(
        max_length=LABEL_LENGTH, description="The Service that carries the traffic of the fleet."
    )
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
    reason: str = Field(default="", description="Reason of the condition Ready, for the columns.")
    message: str = Field(default="", description="Message of the condition Ready.")
    setback: Outcome | None = Field(
        default=None, description="Why the sources are not in force as they are; absent while they are."
    )
    conditions: tuple[Condition, ...] = ()


class Fleet(Value):
    """A ProxyFleet by name; knows the names of everything that belongs to it."""

    name: str
    namespace: str
    uid: str = ""
    generation: int = 0
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
    def issued_controller_secret(self) -> str:
        """The Secret in which an issuer that is not ours leaves the controller's certificate."""
        return f"{self.name}-controller-issued"

    @property
    def issued_proxy_secret(self) -> str:
        """The Secret in which an issuer that is not ours leaves the proxies' certificate."""
        return f"{self.name}-gateway-issued"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the proxies; the selector of the Deployment and, after a migration, of the traffic."""
        return {"app.kubernetes.io/name": "konverge-gateway", "app.kubernetes.io/instance": self.name}
