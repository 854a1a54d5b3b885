"""The rights that the verbs use, derived from the rules that a fleet is deployed with."""

from __future__ import annotations

from collections.abc import Iterable

from konverge.checks.scene import Right
from konverge.decide.objects import FLEET_RULES
from konverge.kube.resources import SOURCES, Object


def expand_rules(rules: Iterable[Object]) -> tuple[Right, ...]:
    """Return every right of RBAC rules; ``*`` as a resource is asked for as ``*``."""
    return tuple(
        Right(verb, group, *_split(resource))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def _split(resource: str) -> tuple[str, str]:
    name, _, subresource = resource.partition("/")
    return name, subresource


SOURCE_RIGHTS = tuple(
    Right(verb, resource.group, resource.plural, namespaced=False)
    for resource in SOURCES
    for verb in ("list", "watch")
)
"""Reading what a configuration is rendered from, in every namespace."""

EXEC_RIGHTS = (Right("get", "", "pods", "exec"), Right("create", "", "pods", "exec"))

FLEET_RIGHTS = tuple(right for right in expand_rules(FLEET_RULES) if right not in EXEC_RIGHTS)
"""What the controller writes in the namespace of its fleet."""

MIGRATION_RIGHTS = (
    *(Right(verb, "apps", "deployments") for verb in ("get", "list", "create", "patch")),
    *(Right(verb, "", "services") for verb in ("get", "list", "create", "patch")),
    Right("patch", "", "pods"),
    Right("get", "", "pods", "portforward"),
    Right("create", "", "pods", "portforward"),
    Right("create", "policy", "poddisruptionbudgets"),
    Right("patch", "policy", "poddisruptionbudgets"),
)
"""What a migration does beyond that: workloads, Services, labels of pods, and the Admin API of legacy pods."""
