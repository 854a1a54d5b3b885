"""The switches of the chart, and what its schema refuses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from chart_rendering import CHART, RELEASE, Helm, environment_of, find, pods_of

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"proxy__type": "LoadBalancer"}, "proxy"),
    ({"gateway__replica": 3}, "replica"),
    ({"fleet__rollout__canaries": 1}, "canaries"),
    ({"fleet__rollout__onHarm": "ignore"}, "onHarm"),
    ({"fleet__rollout__analysis__maxErrorIncrease": 2}, "maxErrorIncrease"),
    ({"fleet__identity__issuer__kind": "acme"}, "issuer"),
    ({"fleet__identity__store__vaultAddress": "http://vault:8200"}, "vaultAddress"),
    ({"fleet__identity__windows": [{"start": "25:00"}]}, "start"),
    ({"fleet__pinnedRevision": 3}, "pinnedRevision"),
    ({"fleet__historyLimit": 1}, "historyLimit"),
    ({"fleet__runner": "cron"}, "runner"),
    ({"admission__certificate__source": "acme"}, "source"),
    ({"controller__antiAffinity": "never"}, "preferred"),
    ({"gateway__routerFlavor": "traditionell"}, "traditional_compatible"),
    ({"gateway__pdb__maxUnavailable": 0}, "maxUnavailable"),
    ({"gateway__replicas": "three"}, "replicas"),
    ({"fleet__name": "Upper"}, "name"),
    ({"prefect__apiUrl": "http://prefect:4200"}, "apiUrl"),
    ({"gateway__resources__limits__memory": "1GB"}, "memory"),
]


@pytest.mark.parametrize(("values", "word"), REFUSED, ids=[next(iter(values)) for values, _ in REFUSED])
def test_schema_refuses_and_names_the_value(helm: Helm, values: dict[str, Any], word: str) -> None:
    done = helm.try_render(**values)
    assert done.returncode != 0
    assert "schema" in done.stderr
    assert word in done.stderr


def _webhook(**certificate: str) -> dict[str, Any]:
    return {"admission__enabled": True, "admission__certificate": certificate}


FAILING: list[tuple[dict[str, Any], str]] = [
    ({"gateway__env": [{"name": "KONG_DATABASE", "value": "postgres"}]}, "gateway.env: KONG_DATABASE"),
    ({"gateway__env": [{"name": "KONG_DECLARATIVE_CONFIG", "value": "/x"}]}, "KONG_DECLARATIVE_CONFIG"),
    ({"prefect__server__enabled": False}, "prefect.apiUrl"),
    ({"fleet__mode": "db"}, "fleet.database.host"),
    (_webhook(source="secret", caBundle="eA=="), "admission.certificate.secret"),
    (_webhook(source="secret", secret="x"), "admission.certificate.caBundle"),
    (_webhook(source="cert-manager"), "admission.certificate.issuer"),
    (
        {"gateway__autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}},
        "minReplicas 5 is above maxReplicas 4",
    ),
]


@pytest.mark.parametrize(("values", "word"), FAILING, ids=[word for _, word in FAILING])
def test_contradictions_are_explained(helm: Helm, values: dict[str, Any], word: str) -> None:
    done = helm.try_render(**values)
    assert done.returncode != 0
    assert word in done.stderr


def test_long_fleet_name_is_refused(helm: Helm) -> None:
    done = helm.run("template", "r" * 45, str(CHART))
    assert done.returncode != 0
    assert "40 is the most" in done.stderr


def test_schema_describes_every_default() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(node: dict[str, Any], value: Any, path: str) -> None:
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        if "properties" not in node:
            return
        assert node["additionalProperties"] is False, path
        assert set(value) <= set(node["properties"]), path
        for key, part in node["properties"].items():
            assert "$ref" in part or part.get("description"), f"{path}.{key} is not described"
            if key in value:
                compare(part, value[key], f"{path}.{key}")

    compare(schema, values, "")


def test_autoscaler_owns_the_replicas(helm: Helm) -> None:
    objects = helm.render(gateway__autoscaling__enabled=True)
    assert "replicas" not in find(objects, "Deployment", f"{RELEASE}-gateway")["spec"]
    scaler = find(objects, "HorizontalPodAutoscaler", f"{RELEASE}-gateway")["spec"]
    assert scaler["scaleTargetRef"]["name"] == f"{RELEASE}-gateway"


def test_existing_proxy_service_is_left_alone(helm: Helm) -> None:
    service = {"create": False, "name": "old-kong-proxy"}
    objects = helm.render(gateway__service=service)
    assert "old-kong-proxy" not in {item["metadata"]["name"] for item in objects}
    assert f"{RELEASE}-gateway-proxy" not in {item["metadata"]["name"] for item in objects}
    fleet = yaml.safe_load(find(objects, "ConfigMap", f"{RELEASE}-fleet")["data"]["fleet.yaml"])
    assert fleet["spec"]["proxyService"] == "old-kong-proxy"


def test_external_prefect_replaces_the_server(helm: Helm) -> None:
    objects = helm.render(prefect__apiUrl="https://prefect.example/api", prefect__authSecret="prefect-auth")
    pods = pods_of(objects)
    assert f"{RELEASE}-prefect" not in pods
    environment = environment_of(pods[f"{RELEASE}-worker"]["containers"][0])
    assert environment["PREFECT_API_URL"] == "https://prefect.example/api"
    assert "PREFECT_API_AUTH_STRING" in environment


def test_prefect_keeps_its_database_on_a_claim(helm: Helm) -> None:
    objects = helm.render(prefect__server__persistence={"enabled": True, "storageClass": "fast"})
    claim = find(objects, "PersistentVolumeClaim", f"{RELEASE}-prefect")
    assert claim["spec"]["storageClassName"] == "fast"
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    (data,) = [v for v in pods_of(objects)[f"{RELEASE}-prefect"]["volumes"] if v["name"] == "data"]
    assert data["persistentVolumeClaim"] == {"claimName": f"{RELEASE}-prefect"}


def test_without_worker_nobody_may_edit_workloads(helm: Helm) -> None:
    objects = helm.render(prefect__worker__enabled=False)
    names = {item["metadata"]["name"] for item in objects if item["kind"] in ("Role", "ServiceAccount")}
    assert names == {f"{RELEASE}-controller"}


def test_single_controller_has_no_budget(helm: Helm) -> None:
    kinds = [
        item["metadata"]["name"]
        for item in helm.render(controller__replicas=1)
        if item["kind"] == "PodDisruptionBudget"
    ]
    assert kinds == [f"{RELEASE}-gateway"]


def test_network_policy_closes_admin_and_status(helm: Helm) -> None:
    peer = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    values = {"networkPolicy__enabled": True, "networkPolicy__metricsFrom": [peer]}
    policy = find(helm.render(**values), "NetworkPolicy", f"{RELEASE}-gateway")["spec"]
    traffic, ours, metrics = policy["ingress"]
    assert [port["port"] for port in traffic["ports"]] == [8000, 8443]
    assert "from" not in traffic
    names = [item["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for item in ours["from"]]
    assert names == ["konverge-controller", "konverge-worker"]
    assert metrics == {"from": [peer], "ports": [{"port": 8100, "protocol": "TCP"}]}


def test_network_policy_says_who_sees_the_page(helm: Helm) -> None:
    assert "NetworkPolicy" not in {item["kind"] for item in helm.render()}
    closed = find(helm.render(networkPolicy__enabled=True), "NetworkPolicy", f"{RELEASE}-controller")["spec"]
    assert (closed["ingress"], closed["policyTypes"]) == ([], ["Ingress"])
    assert closed["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "konverge-controller"
    peer = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    values = {"networkPolicy": {"enabled": True, "controllerFrom": [peer]}, "admission__enabled": True}
    page, webhook = find(helm.render(**values), "NetworkPolicy", f"{RELEASE}-controller")["spec"]["ingress"]
    assert page == {"from": [peer], "ports": [{"port": 10254, "protocol": "TCP"}]}
    assert webhook == {"ports": [{"port": 10260, "protocol": "TCP"}]}


def test_sealing_keys_reach_everybody_who_opens_identities(helm: Helm) -> None:
    pods = pods_of(helm.render(sealingKeys__secret="kek"))
    for name in (f"{RELEASE}-controller", f"{RELEASE}-worker"):
        (volume,) = [volume for volume in pods[name]["volumes"] if volume["name"] == "sealing-keys"]
        assert volume["secret"] == {"secretName": "kek", "defaultMode": 0o440}
        mounts = {mount["name"]: mount for mount in pods[name]["containers"][0]["volumeMounts"]}
        assert mounts["sealing-keys"]["mountPath"] == "/etc/konverge/keys"
    assert "sealing-keys" not in str(pods[f"{RELEASE}-gateway"])


def test_notes_name_the_command_as_it_is(helm: Helm) -> None:
    text = (CHART / "templates" / "NOTES.txt").read_text()
    assert "konverge status {{ $fleet }} --namespace" in text
    assert "--fleet" not in text


def test_changed_fleet_restarts_the_controller(helm: Helm) -> None:
    def checksum(**values: Any) -> str:
        template = find(helm.render(**values), "Deployment", f"{RELEASE}-controller")["spec"]["template"]
        return str(template["metadata"]["annotations"]["konverge.dev/fleet-checksum"])

    assert checksum() != checksum(fleet__paused=True)


def test_readme_lists_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    text = (CHART / "README.md").read_text()
    documented = set(re.findall(r"^\| `([^`]+)`", text, re.MULTILINE))

    def leaves(node: Any, path: str) -> set[str]:
        if isinstance(node, dict) and node and not path.endswith("resources"):
            return {leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}".strip("."))}
        return {path}

    assert documented == leaves(values, "")
