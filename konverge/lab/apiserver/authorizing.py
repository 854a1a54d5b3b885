"""Role-based access control, evaluated on the roles and bindings in the store at every request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from konverge.lab.apiserver.requests import Request, User
from konverge.lab.apiserver.selecting import select_labels
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import StatusError, forbidden_path
from konverge.lab.apiserver.store import Object

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to be allowed: a verb on a resource, or on a path where ``resource`` is empty."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def describe(request: Request) -> Attributes:
    """Return the attributes of a request."""
    if not request.is_resource:
        return Attributes(request.method.lower(), path=request.path)
    namespace = request.namespace
    if request.plural == "namespaces":
        namespace = request.name
    return Attributes(request.verb, request.group, request.plural, request.subresource, namespace, request.name)


HEADER = "Impersonate-"


def read_impersonated(headers: Mapping[str, str]) -> User | None:
    """Return the user that a request wants to act as, or None where it does not."""
    name = headers.get(HEADER + "User", "")
    if not name:
        return None
    every = getattr(headers, "getall", None)
    groups = tuple(every(HEADER + "Group", ())) if every is not None else ()
    groups = (*groups, "system:authenticated")
    if name.startswith(ACCOUNT):
        namespace = name.removeprefix(ACCOUNT).partition(":")[0]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", *groups)
    return User(name, groups, headers.get(HEADER + "Uid", ""))


class Authorizer:
    """Answers whether a user may."""

    def __init__(self, state: State) -> None:
        self._state = state

    def check(self, request: Request) -> None:
        """Raise 403 where the user of a request may not."""
        attributes = describe(request)
        if not self.allows(request.user, attributes)[0]:
            raise refuse_access(request.user, attributes)

    def check_stream(self, request: Request) -> None:
        """Raise 403 where a user may read but not open an exec, attach or port-forward: both are needed."""
        attributes = replace(describe(request), verb="create")
        if not self.allows(request.user, attributes)[0]:
            details = {"name": request.name, "kind": request.plural}
            raise StatusError(403, "Forbidden", f'{request.plural} "{request.name}" is forbidden: ', details)

    def impersonate(self, user: User, wanted: User) -> User:
        """Return ``wanted`` where ``user`` may act as it; raises 403."""
        asked = [("users", wanted.name), *(("groups", group) for group in wanted.groups[:-1])]
        if wanted.name.startswith(ACCOUNT):
            asked = [("serviceaccounts", wanted.name.rpartition(":")[2])]
        for resource, name in asked:
            attributes = Attributes("impersonate", "", resource, name=name)
            if not self.allows(user, attributes)[0]:
                raise refuse_access(user, attributes)
        return wanted

    def allows(self, user: User, attributes: Attributes) -> tuple[bool, str]:
        """Return whether and why."""
        if not self._state.settings.rbac or MASTERS in user.groups:
            return True, ""
        for binding, rules in self._bound_rules(user, attributes.namespace):
            if any(rule_allows(rule, attributes) for rule in rules):
                return True, _explain(binding, user)
        return False, ""

    def list_rules(self, user: User, namespace: str) -> list[Object]:
        """Return all rules that apply to a user in a namespace."""
        if not self._state.settings.rbac or MASTERS in user.groups:
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
        return [rule for _, rules in self._bound_rules(user, namespace) for rule in rules]

    def _bound_rules(self, user: User, namespace: str) -> Iterator[tuple[Object, list[Object]]]:
        store = self._state.store
        for entry in store.collection(f"{GROUP}/clusterrolebindings").entries():
            if _names_user(entry.object, user, ""):
                yield entry.object, self._find_rules(entry.object["roleRef"], "")
        if namespace:
            for entry in store.collection(f"{GROUP}/rolebindings").entries(namespace):
                if _names_user(entry.object, user, namespace):
                    yield entry.object, self._find_rules(entry.object["roleRef"], namespace)

    def _find_rules(self, reference: Object, namespace: str) -> list[Object]:
        plural = "clusterroles" if reference["kind"] == "ClusterRole" else "roles"
        space = "" if plural == "clusterroles" else namespace
        entry = self._state.store.collection(f"{GROUP}/{plural}").get(space, reference["name"])
        if entry is None:
            return []
        aggregation = entry.object.get("aggregationRule")
        if not aggregation:
            return entry.object.get("rules") or []
        return [
            rule for selector in aggregation.get("clusterRoleSelectors") or () for rule in self._aggregate(selector)
        ]

    def _aggregate(self, selector: Object) -> Iterator[Object]:
        matches = select_labels(selector)
        for entry in self._state.store.collection(f"{GROUP}/clusterroles").entries():
            if matches(entry.object):
                yield from entry.object.get("rules") or ()


def _names_user(binding: Object, user: User, namespace: str) -> bool:
    return any(_is_subject(subject, user, namespace) for subject in binding.get("subjects") or ())


def _is_subject(subject: Object, user: User, namespace: str) -> bool:
    if subject["kind"] == "User":
        return bool(subject["name"] == user.name)
    if subject["kind"] == "Group":
        return subject["name"] in user.groups
    return user.name == f"{ACCOUNT}{subject.get('namespace') or namespace}:{subject['name']}"


def rule_allows(rule: Object, attributes: Attributes) -> bool:
    """Return whether one rule covers what is asked."""
    if not _covers(rule.get("verbs"), attributes.verb):
        return False
    if not attributes.resource:
        return any(_covers_path(pattern, attributes.path) for pattern in rule.get("nonResourceURLs") or ())
    if not _covers(rule.get("apiGroups"), attributes.group):
        return False
    if not _covers_resource(rule.get("resources") or [], attributes):
        return False
    names = rule.get("resourceNames")
    return not names or attributes.name in names


def _covers(allowed: list[str] | None, value: str) -> bool:
    return allowed is not None and ("*" in allowed or value in allowed)


def _covers_resource(allowed: list[str], attributes: Attributes) -> bool:
    if "*" in allowed:
        return True
    if not attributes.subresource:
        return attributes.resource in allowed
    return f"{attributes.resource}/{attributes.subresource}" in allowed or f"*/{attributes.subresource}" in allowed


def _covers_path(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def _explain(binding: Object, user: User) -> str:
    metadata, reference = binding["metadata"], binding["roleRef"]
    space = f"/{metadata['namespace']}" if metadata.get("namespace") else ""
    subject: Object = next(
        (s for s in binding.get("subjects") or () if _is_subject(s, user, metadata.get("namespace", ""))), {}
    )
    shown = f'{subject.get("kind")} "{subject.get("name")}"'
    name = metadata["name"] + space
    return f'RBAC: allowed by {binding["kind"]} "{name}" of {reference["kind"]} "{reference["name"]}" to {shown}'


def refuse_access(who: User, attributes: Attributes) -> StatusError:
    """Return the refusal in Kubernetes' words."""
    user = who.name
    if not attributes.resource:
        return forbidden_path(user, attributes.verb, attributes.path)
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    why = f'User "{user}" cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}" {where}'
    qualified = f"{attributes.resource}.{attributes.group}" if attributes.group else attributes.resource
    subject = f'{qualified} "{attributes.name}"' if attributes.name else qualified
    details: dict[str, Any] = {"name": attributes.name} if attributes.name else {}
    details |= ({"group": attributes.group} if attributes.group else {}) | {"kind": attributes.resource}
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {why}", details)
