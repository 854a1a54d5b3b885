"""What a plugin sees of a request, and what it can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from konverge.lab.kong.wire.exchange import Request
from konverge.lab.kong.wire.message import HeaderItems, Headers

if TYPE_CHECKING:
    from konverge.lab.kong.proxy.counters import Counters
    from konverge.lab.kong.router.table import Match
    from konverge.lab.kong.state import Snapshot

Entity = dict[str, Any]
Config = dict[str, Any]


@dataclass(slots=True)
class Local:
    """A response that Kong makes itself."""

    status: int
    message: str | None = None
    """Wrapped in Kong's error body, in the format that the client accepts."""
    headers: HeaderItems = field(default_factory=list)
    body: bytes | None = None
    content_type: str | None = None
    json: Any = None


@dataclass(slots=True)
class Context:
    """One proxied request on its way."""

    request: Request
    match: Match
    snapshot: Snapshot
    counters: Counters
    request_id: str
    path: str
    query: str
    method: str
    client_ip: str
    upstream_headers: Headers
    now: float
    consumer: Entity | None = None
    credential: Entity | None = None
    groups: list[str] = field(default_factory=list)
    response_headers: HeaderItems = field(default_factory=list)
    """Fields that plugins add to whatever is answered."""
    upstream_path: str | None = None
    """Set by a plugin that replaces the path."""

    def authenticate(self, consumer: Entity | None, credential: Entity | None) -> None:
        """Note who this is, and tell the upstream."""
        self.consumer, self.credential = consumer, credential
        headers = self.upstream_headers
        for name, value in (
            ("x-consumer-id", consumer and consumer["id"]),
            ("x-consumer-custom-id", consumer and consumer.get("custom_id")),
            ("x-consumer-username", consumer and consumer.get("username")),
            ("x-credential-identifier", credential and credential.get("_identifier")),
        ):
            headers.remove(name)
            if value:
                headers.set(name, str(value))
        headers.remove("x-anonymous-consumer")
        if consumer is not None and credential is None:
            headers.set("x-anonymous-consumer", "true")


class Plugin:
    """A plugin; instances are shared by every request."""

    name = ""

    async def access(self, context: Context, config: Config, plugin_id: str) -> Local | None:  # noqa: ARG002
        """Look at a request before it is proxied; a returned response ends it."""
        return None

    def header_filter(
        self,
        context: Context,  # noqa: ARG002
        config: Config,  # noqa: ARG002
        status: int,  # noqa: ARG002
        headers: Headers,  # noqa: ARG002
    ) -> None:
        """Change the headers of a response, proxied or local."""
        return


def consumer_by_reference(snapshot: Snapshot, reference: str) -> Entity | None:
    """Return the consumer of an ``anonymous`` setting: an id or a username."""
    consumers = snapshot.entities.get("consumers", {})
    found = consumers.get(reference)
    if found is None:
        found = next((item for item in consumers.values() if item.get("username") == reference), None)
    return found


def owner_of(snapshot: Snapshot, credential: Entity) -> Entity | None:
    """Return the consumer of a credential."""
    return snapshot.entities.get("consumers", {}).get((credential.get("consumer") or {}).get("id", ""))


def use_anonymous(context: Context, config: Config) -> bool:
    """Go on as the anonymous consumer where one is configured."""
    reference = config.get("anonymous")
    if not reference:
        return False
    consumer = consumer_by_reference(context.snapshot, reference)
    if consumer is None:
        return False
    context.authenticate(consumer, None)
    return True
