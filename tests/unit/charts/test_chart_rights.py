"""The exact rights that the chart grants."""

from __future__ import annotations

from chart_rendering import NAMESPACE, RELEASE, Helm, Object, find

from konverge.decide.objects import CERT_MANAGER_RULES, FLEET_RULES, SOURCE_RULES
from konverge.kube.resources import SOURCES

Rights = dict[tuple[str, str], tuple[str, ...]]
CLUSTER = f"konverge-{NAMESPACE}-{RELEASE}"
CONTROLLER, WORKER = f"{RELEASE}-controller", f"{RELEASE}-worker"

WORKER_RIGHTS: Rights = {
    ("apps", "deployments"): ("get", "list", "patch"),
    ("", "services"): ("get", "list", "patch"),
    ("", "pods"): ("patch",),
    ("", "pods/portforward"): ("create", "get"),
    ("konverge.dev", "fleetmigrations"): ("create", "get", "patch"),
    ("konverge.dev", "fleetmigrations/status"): ("update",),
    ("konverge.dev", "proxyinstances/status"): ("update",),
    ("konverge.dev", "sealedidentities"): ("delete", "update"),
    ("", "secrets"): ("update",),
    ("", "resourcequotas"): ("list",),
    ("policy", "poddisruptionbudgets"): ("get", "list"),
    ("autoscaling", "horizontalpodautoscalers"): ("list",),
}
CHECKS: Rights = {
    ("", "namespaces"): ("list",),
    ("", "nodes"): ("list",),
    ("", "pods"): ("list",),
    ("apiextensions.k8s.io", "customresourcedefinitions"): ("list",),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): ("list",),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): ("list",),
}


def read_rights(role: Object) -> Rights:
    """Return the verbs of a role by group and resource."""
    rights: Rights = {}
    for rule in role["rules"]:
        assert set(rule) == {"apiGroups", "resources", "verbs"}, rule
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert (group, resource) not in rights, f"{group}/{resource} is granted twice"
                rights[group, resource] = tuple(sorted(rule["verbs"]))
    return rights


def test_the_sources_are_every_kind_that_is_rendered() -> None:
    rights = {(source.group, source.plural): ("list", "watch") for source in SOURCES}
    assert read_rights({"rules": SOURCE_RULES}) == rights | {("", "events"): ("create", "patch")}


def test_rights_of_the_controller_are_those_that_the_library_grants(objects: list[Object], helm: Helm) -> None:
    assert read_rights(find(objects, "ClusterRole", CLUSTER)) == read_rights({"rules": SOURCE_RULES})
    assert read_rights(find(objects, "Role", CONTROLLER)) == read_rights({"rules": FLEET_RULES})
    issued = find(helm.render(fleet__identity__issuer__kind="cert-manager"), "Role", CONTROLLER)
    assert read_rights(issued) == read_rights({"rules": [*FLEET_RULES, *CERT_MANAGER_RULES]})


def test_rights_of_the_worker(objects: list[Object]) -> None:
    assert read_rights(find(objects, "Role", WORKER)) == WORKER_RIGHTS
    assert read_rights(find(objects, "ClusterRole", f"{CLUSTER}-worker")) == CHECKS


def test_where_konverge_deploys_the_proxies_the_worker_may_create_them(helm: Helm) -> None:
    rights = read_rights(find(helm.render(gateway__enabled=False), "Role", WORKER))
    more = {name: set(verbs) - set(WORKER_RIGHTS[name]) for name, verbs in rights.items()}
    assert {name: verbs for name, verbs in more.items() if verbs} == {
        ("apps", "deployments"): {"create"},
        ("", "services"): {"create"},
        ("policy", "poddisruptionbudgets"): {"create", "patch"},
    }


def test_the_worker_is_granted_nothing_twice(objects: list[Object]) -> None:
    ours, theirs = read_rights(find(objects, "Role", WORKER)), read_rights(find(objects, "Role", CONTROLLER))
    assert [(name, set(verbs) & set(theirs.get(name, ()))) for name, verbs in ours.items()] == [
        (name, set()) for name in ours
    ]


def test_no_wildcards(objects: list[Object]) -> None:
    roles = [item for item in objects if item["kind"] in ("Role", "ClusterRole")]
    assert len(roles) == 4
    assert "*" not in [word for role in roles for rule in role["rules"] for part in rule.values() for word in part]


def test_bindings_name_our_accounts_only(objects: list[Object]) -> None:
    accounts = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"}
    bindings = [item for item in objects if item["kind"] in ("RoleBinding", "ClusterRoleBinding")]
    subjects = [subject for binding in bindings for subject in binding["subjects"]]
    assert {subject["name"] for subject in subjects} == accounts
    assert {subject["namespace"] for subject in subjects} == {NAMESPACE}
    for binding in bindings:
        find(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])
