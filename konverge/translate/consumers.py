"""KongConsumer and KongConsumerGroup to consumers, their credentials and their groups."""

from __future__ import annotations

from dataclasses import dataclass, field

from konverge.translate.annotations import PLUGINS
from konverge.translate.classes import selects
from konverge.translate.credentials import TYPES, CredentialError, read_credential
from konverge.translate.drafts import Entity
from konverge.translate.entities import Entry, drop_empty
from konverge.translate.objects import annotations_of, name_of, namespace_of, tag
from konverge.translate.problems import Object, ObjectRef, refer
from konverge.translate.referring import Reference, read_references
from konverge.translate.store import Scope

CONSUMER = "KongConsumer"
GROUP = "KongConsumerGroup"

Claimed = tuple[str, str]
"""(credential type, value that must be unique)."""


@dataclass(slots=True)
class ConsumerResult:
    """One consumer; it is left out altogether where one of its credentials is claimed twice."""

    entry: Entry
    ref: ObjectRef
    memberships: list[Entry] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    claims: list[tuple[Claimed, ObjectRef]] = field(default_factory=list, repr=False)
    """The unique values it holds, with the Secrets they come from."""


@dataclass(slots=True)
class GroupResult:
    """One consumer group."""

    entry: Entry
    references: list[Reference] = field(default_factory=list)


def translate_consumer(consumer: Object, scope: Scope) -> ConsumerResult | None:
    """Return the consumer, None where it is another class' or has no identity."""
    if not selects(scope, consumer):
        return None
    username: str = consumer.get("username") or ""
    custom_id: str = consumer.get("custom_id") or ""
    if not username and not custom_id:
        message = "A KongConsumer needs a username or a custom_id: it is left out."
        scope.report(CONSUMER, consumer, "ConsumerWithoutIdentity", message)
        return None
    entity: Entity = {"tags": tag(CONSUMER, consumer)}
    if username:
        entity["username"] = username
        entity["id"] = scope.ids.consumer(username)
    if custom_id:
        entity["custom_id"] = custom_id
    claims = _add_credentials(entity, consumer, scope)
    identity = (username, custom_id, namespace_of(consumer), name_of(consumer))
    result = ConsumerResult(Entry(identity, drop_empty(entity)), refer(CONSUMER, consumer), claims=claims)
    result.memberships = _join_groups(consumer, identity, scope)
    names = annotations_of(consumer).get(PLUGINS)
    target = ("consumer", username or custom_id)
    result.references = read_references(scope, CONSUMER, consumer, names, (), target)
    return result


def _add_credentials(entity: Entity, consumer: Object, scope: Scope) -> list[tuple[Claimed, ObjectRef]]:
    claims: list[tuple[Claimed, ObjectRef]] = []
    namespace = namespace_of(consumer)
    for name in consumer.get("credentials") or ():
        secret = scope.get("Secret", namespace, name)
        try:
            if secret is None:
                raise CredentialError("does not exist")
            complaints: list[str] = []
            credential = read_credential(secret, complaints.append)
        except CredentialError as error:
            message = f"Secret {namespace}/{name} {error}: this credential is left out."
            scope.report(CONSUMER, consumer, "CredentialInvalid", message)
            continue
        for complaint in complaints:
            scope.report(CONSUMER, consumer, "CredentialInvalid", f"Secret {namespace}/{name}: {complaint}.")
        credential.entity["tags"] = tag("Secret", secret)
        entity.setdefault(TYPES[credential.type_name].field, []).append(drop_empty(credential.entity))
        if credential.unique is not None:
            claims.append(((credential.type_name, credential.unique), refer("Secret", secret)))
    return claims


def _join_groups(consumer: Object, identity: tuple[str, str, str, str], scope: Scope) -> list[Entry]:
    entries = []
    namespace = namespace_of(consumer)
    for index, name in enumerate(consumer.get("consumerGroups") or ()):
        group = scope.get(GROUP, namespace, name)
        if group is None or not selects(scope, group):
            message = f"KongConsumerGroup {namespace}/{name} does not exist: the membership is left out."
            scope.report(CONSUMER, consumer, "ConsumerGroupNotFound", message)
            continue
        row = {"consumer": identity[0], "consumer_group": name}
        entries.append(Entry((*identity, index), row))
    return entries


def translate_group(group: Object, scope: Scope) -> GroupResult | None:
    """Return the consumer group, None where it is another class'."""
    if not selects(scope, group):
        return None
    name = name_of(group)
    entity: Entity = {"name": name, "id": scope.ids.consumer_group(name), "tags": tag(GROUP, group)}
    entry = Entry((name, namespace_of(group)), drop_empty(entity))
    names = annotations_of(group).get(PLUGINS)
    references = read_references(scope, GROUP, group, names, (), ("consumer_group", name))
    return GroupResult(entry, references)
