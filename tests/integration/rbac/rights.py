"""Rights as a role grants them and as requests use them, read from the API server's audit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from konverge.kube.resources import Object

CLUSTER, FLEET = "cluster", "fleet"
ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, order=True)
class Right:
    """A verb on a resource (subresource included), everywhere or in the fleet's namespace."""

    group: str
    resource: str
    verb: str
    where: str

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}".rstrip(".")
        return f"{self.verb} {name} ({self.where})"


@dataclass(frozen=True)
class Asked:
    """What an account asked for, and the answer."""

    account: str
    right: Right
    namespace: str
    code: int


def read_audit(path: Path, namespace: str) -> Iterator[Asked]:
    """Yield the requests of service accounts of the namespace for resources."""
    prefix = f"{ACCOUNT}{namespace}:"
    for line in path.read_bytes().splitlines():
        event = orjson.loads(line)
        user, wanted = event["user"]["username"], event["objectRef"]
        if not user.startswith(prefix) or not wanted["resource"]:
            continue
        name = "/".join(filter(None, (wanted["resource"], wanted["subresource"])))
        where = FLEET if wanted["namespace"] == namespace else CLUSTER
        right = Right(wanted["apiGroup"], name, event["verb"], where)
        yield Asked(user.removeprefix(prefix), right, wanted["namespace"], event["responseStatus"]["code"])


def read_rules(role: Object) -> set[Right]:
    """Return the rights of a Role or ClusterRole."""
    where = CLUSTER if role["kind"] == "ClusterRole" else FLEET
    return {
        Right(group, resource, verb, where)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
