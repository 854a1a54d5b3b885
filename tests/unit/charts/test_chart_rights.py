"""The exact rights that the chart grants."""

from __future__ import annotations

from chart_rendering import NAMESPACE, RELEASE, Object, find

from konverge.kube.resources import SOURCES

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "get", "list", "patch", "update", "watch")
Rights = dict[tuple[str, str], tuple[str, ...]]

CLUSTER: Rights = {(source.group, source.plural): READ for source in SOURCES} | {
    ("", "namespaces"): READ,
    ("", "events"): ("create", "patch"),
}
CONTROLLER: Rights = {
    ("konverge.dev", "configrevisions"): WRITE,
    ("konverge.dev", "fleetmigrations"): WRITE,
    ("konverge.dev", "proxyfleets"): WRITE,
    ("konverge.dev", "proxyinstances"): WRITE,
    ("konverge.dev", "configrevisions/status"): ("get", "patch", "update"),
    ("konverge.dev", "fleetmigrations/status"): ("get", "patch", "update"),
    ("konverge.dev", "proxyfleets/status"): ("get", "patch", "update"),
    ("konverge.dev", "proxyinstances/status"): ("get", "patch", "update"),
    ("", "secrets"): WRITE,
    ("", "pods"): READ,
    ("", "pods/status"): ("get", "patch"),
    ("", "pods/exec"): ("create", "get"),
    ("apps", "deployments"): READ,
    ("coordination.k8s.io", "leases"): ("create", "get", "patch", "update"),
}
WORKER: Rights = {
    ("apps", "deployments"): WRITE,
    ("", "services"): WRITE,
    ("", "pods"): ("delete", "get", "list", "patch", "watch"),
    ("", "pods/portforward"): ("create", "get"),
    ("policy", "poddisruptionbudgets"): WRITE,
    ("autoscaling", "horizontalpodautoscalers"): ("get", "list", "patch", "watch"),
}


def read_rights(role: Object) -> Rights:
    """Return the verbs of a role by group and resource."""
    rights: Rights = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in rights, f"{group}/{resource} is granted twice"
                rights[group, resource] = tuple(sorted(rule["verbs"]))
    return rights


def test_cluster_rights_are_reading_the_sources(objects: list[Object]) -> None:
    assert read_rights(find(objects, "ClusterRole", f"konverge-{NAMESPACE}-{RELEASE}")) == CLUSTER


def test_rights_of_the_controller(objects: list[Object]) -> None:
    assert read_rights(find(objects, "Role", f"{RELEASE}-controller")) == CONTROLLER


def test_rights_of_the_worker(objects: list[Object]) -> None:
    assert read_rights(find(objects, "Role", f"{RELEASE}-worker")) == WORKER


def test_no_wildcards(objects: list[Object]) -> None:
    roles = [item for item in objects if item["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == 3
    assert "*" not in [word for role in roles for rule in role["rules"] for part in rule.values() for word in part]


def test_bindings_name_our_accounts_only(objects: list[Object]) -> None:
    accounts = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"}
    bindings = [item for item in objects if item["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    subjects = [subject for binding in bindings for subject in binding["subjects"]]
    assert {subject["name"] for subject in subjects} == accounts
    assert {subject["namespace"] for subject in subjects} == {NAMESPACE}
    for binding in bindings:
        find(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
