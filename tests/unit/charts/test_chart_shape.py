"""What the chart renders to, whatever helm renders it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from chart_rendering import CHART, NAMESPACE, RELEASE, Helm, Object, environment_of, find, pick_helm, pods_of

from konverge.decide.objects import build_fleet_objects, proxy_environment
from konverge.model.fleet import Fleet, FleetSpec
from konverge.operate.orchestrator import CLIENT_SETTINGS, SERVER_SETTINGS

GATEWAY, CONTROLLER = f"{RELEASE}-gateway", f"{RELEASE}-controller"
KINDS = sorted(
    [
        *["ClusterRole"] * 2,
        *["ClusterRoleBinding"] * 2,
        "ConfigMap",
        *["Deployment"] * 4,
        "Pod",
        *["PodDisruptionBudget"] * 2,
        *["Role"] * 2,
        *["RoleBinding"] * 2,
        *["Service"] * 4,
        *["ServiceAccount"] * 2,
    ]
)


def walk(node: Any) -> list[Any]:
    """Return every dictionary within a document."""
    if isinstance(node, dict):
        return [node, *(found for value in node.values() for found in walk(value))]
    if isinstance(node, list):
        return [found for value in node for found in walk(value)]
    return []


def test_lint_is_strict_and_clean(helm: Helm) -> None:
    done = helm.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    assert "ERROR" not in done.stdout


def test_default_objects(objects: list[Object]) -> None:
    assert sorted(item["kind"] for item in objects) == KINDS
    namespaced = [item for item in objects if not item["kind"].startswith("Cluster")]
    assert {item["metadata"].get("namespace") for item in namespaced} == {NAMESPACE}


def test_both_helms_render_the_same() -> None:
    three, four = pick_helm("3").render(), pick_helm("4").render()
    assert sorted(map(str, three)) == sorted(map(str, four))


def test_no_version_label_in_selectors(objects: list[Object]) -> None:
    """A selector with the chart's version drops every old pod at the next upgrade."""
    stable = {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    for item in objects:
        spec = item.get("spec") or {}
        for key in ("selector", "podSelector"):
            if selector := spec.get(key):
                assert set(selector.get("matchLabels", selector)) == stable, item["metadata"]["name"]
    for entry in (entry for item in objects for entry in walk(item) if "labelSelector" in entry):
        assert set(entry["labelSelector"]["matchLabels"]) == stable


def test_pod_templates_do_not_change_with_the_chart(objects: list[Object]) -> None:
    for item in objects:
        if item["kind"] == "Deployment":
            labels = item["spec"]["template"]["metadata"]["labels"]
            assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(labels)
            assert item["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_every_pod_is_restricted(objects: list[Object]) -> None:
    for name, pod in pods_of(objects).items():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] is True
            assert "privileged" not in context
        assert not any(key.startswith("host") for key in pod)
        assert all("hostPath" not in volume for volume in pod.get("volumes", []))


def test_every_container_asks_for_resources(objects: list[Object]) -> None:
    for pod in pods_of(objects).values():
        for container in pod["containers"]:
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


def test_gateway_agrees_with_what_the_library_deploys(objects: list[Object]) -> None:
    spec = FleetSpec(proxy_service=f"{RELEASE}-gateway-proxy")
    fleet = Fleet(name=RELEASE, namespace=NAMESPACE, spec=spec)
    ours = {item["kind"]: item for item in build_fleet_objects(fleet)}
    deployment = find(objects, "Deployment", fleet.deployment)
    theirs, expected = deployment["spec"]["template"]["spec"], ours["Deployment"]["spec"]["template"]["spec"]
    (proxy,), (wanted,) = theirs["containers"], expected["containers"]
    assert environment_of(proxy) == proxy_environment(fleet)
    for key in ("name", "image", "ports", "readinessProbe", "livenessProbe", "lifecycle"):
        assert proxy[key] == wanted[key], key
    for key in ("readinessGates", "affinity", "volumes", "automountServiceAccountToken"):
        assert theirs[key] == expected[key], key
    assert theirs["terminationGracePeriodSeconds"] == expected["terminationGracePeriodSeconds"]
    for key in ("selector", "strategy", "replicas"):
        assert deployment["spec"][key] == ours["Deployment"]["spec"][key], key
    assert find(objects, "Service", fleet.admin_service)["spec"] == ours["Service"]["spec"]
    budget = find(objects, "PodDisruptionBudget", fleet.deployment)["spec"]
    assert ours["PodDisruptionBudget"]["spec"].items() <= budget.items()


def test_gateway_of_a_database_agrees_with_what_the_library_deploys(helm: Helm) -> None:
    values = {"host": "pg.data", "port": 5433, "name": "edge", "user": "edge", "passwordSecret": "pg", "tls": True}
    objects = helm.render(fleet__mode="db", fleet__database=values)
    body = yaml.safe_load(find(objects, "ConfigMap", f"{RELEASE}-fleet")["data"]["fleet.yaml"])
    fleet = Fleet(name=RELEASE, namespace=NAMESPACE, spec=FleetSpec.model_validate(body["spec"]))
    expected = build_fleet_objects(fleet)[-1]["spec"]["template"]["spec"]
    pod = pods_of(objects)[GATEWAY]
    for kind in ("containers", "initContainers"):
        (ours,), (theirs,) = expected[kind], pod[kind]
        assert sorted(theirs["env"], key=str) == sorted(ours["env"], key=str), kind
        assert theirs.get("command") == ours.get("command")
        assert {m["name"] for m in ours["volumeMounts"]} <= {m["name"] for m in theirs["volumeMounts"]}
    assert "initContainers" not in pods_of(helm.render())[GATEWAY]


def test_readiness_gate_and_identity(objects: list[Object]) -> None:
    pod = pods_of(objects)[GATEWAY]
    assert pod["readinessGates"] == [{"conditionType": "konverge.dev/configured"}]
    (identity,) = [volume for volume in pod["volumes"] if volume["name"] == "identity"]
    assert identity["secret"] == {"secretName": f"{RELEASE}-gateway-identity", "defaultMode": 0o440}
    environment = environment_of(pod["containers"][0])
    assert environment["KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT"] == "on"
    assert environment["KONG_NGINX_ADMIN_SSL_SESSION_TICKETS"] == "off"
    assert environment["KONG_NGINX_ADMIN_SSL_SESSION_CACHE"] == "off"


def test_admin_service_publishes_unready_proxies(objects: list[Object]) -> None:
    spec = find(objects, "Service", f"{RELEASE}-gateway-admin")["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True


@pytest.mark.parametrize("workload", ["gateway", "controller"])
def test_anti_affinity(helm: Helm, objects: list[Object], workload: str) -> None:
    name = f"{RELEASE}-{workload}"
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    (term,) = pods_of(objects)[name]["affinity"]["podAntiAffinity"][preferred]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    rendered = helm.render(**{f"{workload}__antiAffinity": "required"})
    affinity = pods_of(rendered)[name]["affinity"]["podAntiAffinity"]
    (term,) = affinity.pop("requiredDuringSchedulingIgnoredDuringExecution")
    assert not affinity
    assert term["topologyKey"] == "kubernetes.io/hostname"
    labels = find(rendered, "Deployment", name)["spec"]["selector"]["matchLabels"]
    assert term["labelSelector"]["matchLabels"] == labels
    assert "affinity" not in pods_of(helm.render(**{f"{workload}__antiAffinity": "none"}))[name]


def test_controller_has_a_standby_and_probes(objects: list[Object]) -> None:
    deployment = find(objects, "Deployment", CONTROLLER)
    assert deployment["spec"]["replicas"] == 2
    assert find(objects, "PodDisruptionBudget", CONTROLLER)["spec"]["maxUnavailable"] == 1
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 10254, "scheme": "HTTP"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": 10254, "scheme": "HTTP"}
    assert container["args"][0] == "controller"


def test_fleet_object_is_valid_and_complete(objects: list[Object]) -> None:
    text = find(objects, "ConfigMap", f"{RELEASE}-fleet")["data"]["fleet.yaml"]
    body = yaml.safe_load(text)
    assert (body["kind"], body["metadata"]) == ("ProxyFleet", {"name": RELEASE, "namespace": NAMESPACE})
    fields = {field.alias for field in FleetSpec.model_fields.values()}
    # A file that speaks of the pin would take a rollback back at the next start of the controller.
    assert set(body["spec"]) == fields - {"pinnedRevision"}
    assert body["spec"]["rollout"] == FleetSpec(proxy_service="x").to_json()["rollout"]
    assert body["spec"]["identity"] == FleetSpec(proxy_service="x").to_json()["identity"]
    assert FleetSpec.model_validate(body["spec"]) == FleetSpec(proxy_service=f"{RELEASE}-gateway-proxy")
    assert not [item for item in objects if item["apiVersion"].startswith("konverge.dev")]


def test_beside_the_worker_the_deployments_of_its_fleet_are_kept(objects: list[Object]) -> None:
    """Without them no schedule renews the certificates."""
    pods = pods_of(objects)
    worker, bootstrap = pods[f"{RELEASE}-worker"]["containers"]
    assert worker["name"] == "worker"
    assert bootstrap["args"][:2] == ["server", "bootstrap"]
    assert "--keep" in bootstrap["args"]
    environment = environment_of(bootstrap)
    assert (environment["KONVERGE_FLEET"], environment["KONVERGE_NAMESPACE"]) == (RELEASE, NAMESPACE)
    assert environment["KONVERGE_POOL"] == worker["command"][-1]
    names = {
        environment_of(container)["KONVERGE_DEPLOYMENT"]
        for container in (bootstrap, pods[CONTROLLER]["containers"][0], worker)
    }
    assert names == {f"{NAMESPACE}-{RELEASE}"}, "the controller asks for the deployments that were made"


def test_prefect_settings_are_those_of_the_embedded_server(objects: list[Object]) -> None:
    server = environment_of(pods_of(objects)[f"{RELEASE}-prefect"]["containers"][0])
    assert SERVER_SETTINGS.items() <= server.items()
    for name in (f"{RELEASE}-worker", CONTROLLER):
        client = environment_of(pods_of(objects)[name]["containers"][0])
        assert CLIENT_SETTINGS.items() <= client.items()
        assert client["PREFECT_API_URL"] == f"http://{RELEASE}-prefect.{NAMESPACE}.svc:4200/api"
