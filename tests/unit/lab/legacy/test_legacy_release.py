from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from cryptography import x509

from konverge.decide.legacy import find_release
from konverge.errors import Invalid
from konverge.kube.resources import SOURCES
from konverge.lab.legacy import (
    LegacySettings,
    decode_release,
    dump,
    full_name,
    kong_crds,
    legacy_release,
    sample_applications,
    sample_load,
)
from konverge.lab.legacy.__main__ import main
from konverge.lab.legacy.sample import SAMPLE_KEY
from konverge.translate import render

Object = dict[str, Any]


def of_kind(objects: list[Object], kind: str, name: str = "") -> Object:
    return next(o for o in objects if o["kind"] == kind and name in o["metadata"]["name"])


@pytest.fixture(scope="module")
def release() -> list[Object]:
    return legacy_release("edge", "gateways", 3, LegacySettings(deployed_at=datetime(2026, 1, 2, tzinfo=UTC)))


def environment(deployment: Object, container: str) -> dict[str, str]:
    found = next(c for c in deployment["spec"]["template"]["spec"]["containers"] if c["name"] == container)
    return {entry["name"]: entry.get("value", "") for entry in found["env"]}


def test_the_deployment_is_the_charts(release: list[Object]) -> None:
    deployment = of_kind(release, "Deployment")
    assert (deployment["metadata"]["name"], deployment["metadata"]["namespace"]) == ("edge-kong", "gateways")
    assert deployment["spec"]["replicas"] == 3
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/component": "app",
        "app.kubernetes.io/instance": "edge",
        "app.kubernetes.io/name": "kong",
    }
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    controller = environment(deployment, "ingress-controller")
    assert controller["CONTROLLER_KONG_ADMIN_URL"] == "https://localhost:8444"
    assert controller["CONTROLLER_PUBLISH_SERVICE"] == "gateways/edge-kong-proxy"
    proxy = environment(deployment, "proxy")
    assert proxy["KONG_ADMIN_LISTEN"].startswith("127.0.0.1:8444 http2 ssl")
    assert (proxy["KONG_DATABASE"], proxy["KONG_ROUTER_FLAVOR"]) == ("off", "traditional")


def test_every_mount_has_its_volume_and_every_reference_its_object(release: list[Object]) -> None:
    pod = of_kind(release, "Deployment")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {m["name"] for c in pod["containers"] + pod["initContainers"] for m in c["volumeMounts"]}
    assert mounted == set(volumes)
    names = {(o["kind"], o["metadata"]["name"]) for o in release}
    assert ("Secret", volumes["webhook-cert"]["secret"]["secretName"]) in names
    assert ("ServiceAccount", pod["serviceAccountName"]) in names


def test_the_migration_recognises_the_release(release: list[Object]) -> None:
    services = [o for o in release if o["kind"] == "Service"]
    found = find_release("edge", [of_kind(release, "Deployment")], services)
    assert (found.service, found.replicas, found.ingress_class) == ("edge-kong-proxy", 3, "kong")
    assert found.router_flavor == "traditional"


def test_metrics_and_webhook_select_by_the_charts_version_and_the_proxy_does_not(release: list[Object]) -> None:
    assert "helm.sh/chart" in of_kind(release, "Service", "metrics")["spec"]["selector"]
    assert "helm.sh/chart" in of_kind(release, "Service", "webhook")["spec"]["selector"]
    assert "helm.sh/chart" not in of_kind(release, "Service", "proxy")["spec"]["selector"]


def test_objects_are_helms(release: list[Object]) -> None:
    for body in release[:-1]:
        assert body["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert body["metadata"]["annotations"]["meta.helm.sh/release-name"] == "edge"
        assert body["metadata"]["annotations"]["meta.helm.sh/release-namespace"] == "gateways"


def test_the_release_secret_is_what_helm_reads(release: list[Object]) -> None:
    secret = release[-1]
    assert secret["metadata"]["name"] == "sh.helm.release.v1.edge.v1"
    assert secret["type"] == "helm.sh/release.v1"
    assert secret["metadata"]["labels"]["owner"] == "helm"
    stored = decode_release(secret)
    assert stored["info"]["status"] == "deployed"
    assert stored["info"]["first_deployed"] == "2026-01-02T00:00:00Z"
    assert (stored["chart"]["metadata"]["name"], stored["chart"]["metadata"]["version"]) == ("kong", "3.4.1")
    assert stored["config"] == {"replicaCount": 3}
    assert list(yaml.safe_load_all(stored["manifest"])) == release[:-1]


def test_changed_environment_is_rendered_and_recorded() -> None:
    settings = LegacySettings(
        proxy_env={"KONG_ROUTER_FLAVOR": "expressions"},
        controller_env={"CONTROLLER_PROXY_SYNC_SECONDS": "1"},
        proxy_image="kong/kong:3.8",
        init_image=None,
    )
    objects = legacy_release("edge", "gateways", 1, settings)
    deployment = of_kind(objects, "Deployment")
    assert environment(deployment, "proxy")["KONG_ROUTER_FLAVOR"] == "expressions"
    assert environment(deployment, "ingress-controller")["CONTROLLER_PROXY_SYNC_SECONDS"] == "1"
    assert "initContainers" not in deployment["spec"]["template"]["spec"]
    assert decode_release(objects[-1])["config"] == {
        "replicaCount": 1,
        "image": {"repository": "kong/kong", "tag": "3.8"},
        "env": {"router_flavor": "expressions"},
        "ingressController": {"env": {"proxy_sync_seconds": "1"}},
    }


@pytest.mark.parametrize(("name", "full"), [("edge", "edge-kong"), ("kong", "kong"), ("my-kong-eu", "my-kong-eu")])
def test_the_full_name_follows_the_chart(name: str, full: str) -> None:
    assert full_name(name) == full
    assert of_kind(legacy_release(name, "n"), "Service", "proxy")["metadata"]["name"] == f"{full}-proxy"


def test_the_webhook_certificate_is_for_its_service_and_signed_by_the_bundle(release: list[Object]) -> None:
    data = of_kind(release, "Secret", "webhook-keypair")["data"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["edge-kong-validation-webhook.gateways.svc"]
    hook = of_kind(release, "ValidatingWebhookConfiguration")["webhooks"][0]
    authority = x509.load_pem_x509_certificate(base64.b64decode(hook["clientConfig"]["caBundle"]))
    certificate.verify_directly_issued_by(authority)


def test_what_is_no_release_is_refused_by_name() -> None:
    with pytest.raises(Invalid, match=r"Secret other field data\.release"):
        decode_release({"metadata": {"name": "other"}, "data": {"release": "bm8="}})


def test_every_custom_kind_of_the_translation_is_defined() -> None:
    defined = {
        (crd["spec"]["group"], crd["spec"]["versions"][0]["name"], crd["spec"]["names"]["plural"]): crd
        for crd in kong_crds()
    }
    wanted = {(r.group, r.version, r.plural): r for r in SOURCES if "." in r.group and not r.group.endswith(".io")}
    wanted |= {(r.group, r.version, r.plural): r for r in SOURCES if r.group == "gateway.networking.k8s.io"}
    assert set(defined) == set(wanted)
    for key, resource in wanted.items():
        names = defined[key]["spec"]["names"]
        assert names["kind"] == resource.kind
        assert defined[key]["metadata"]["name"] == f"{resource.plural}.{resource.group}"
        assert (defined[key]["spec"]["scope"] == "Namespaced") is resource.namespaced


def test_short_names_are_unique() -> None:
    short = [name for crd in kong_crds() for name in crd["spec"]["names"].get("shortNames", [])]
    assert len(set(short)) == len(short) >= 12


def test_changing_one_object_changes_no_other() -> None:
    first, second = kong_crds()[:2]
    first["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["plugin"]["type"] = "x"
    schema = second["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["properties"]["plugin"]["type"] == "string"
    assert kong_crds()[0] != first


def test_the_load_reaches_every_host_of_the_sample() -> None:
    plan = sample_load("http://127.0.0.1:80")
    ingresses = [o for o in sample_applications("sample") if o["kind"] == "Ingress"]
    hosts = {rule["host"] for ingress in ingresses for rule in ingress["spec"]["rules"]}
    reached = {target.host for item in plan.classes for target in item.targets}
    assert {host.replace("*", "blue") for host in hosts} == reached


def test_the_sample_refers_only_to_its_own_objects() -> None:
    objects = sample_applications("sample")
    names = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for ingress in (o for o in objects if o["kind"] == "Ingress"):
        for plugin in ingress["metadata"].get("annotations", {}).get("konghq.com/plugins", "").split(","):
            assert ("KongPlugin", plugin) in names
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert ("Service", path["backend"]["service"]["name"]) in names
        for tls in ingress["spec"].get("tls", []):
            assert ("Secret", tls["secretName"]) in names
    assert {o["metadata"]["namespace"] for o in objects} == {"sample"}


def test_the_sample_translates_without_a_problem() -> None:
    rendered = render(sample_applications("sample"))
    assert rendered.problems == ()
    assert [consumer["keyauth_credentials"][0]["key"] for consumer in rendered.document["consumers"]] == [SAMPLE_KEY]
    assert {plugin["name"] for plugin in rendered.document["plugins"]} >= {"key-auth", "cors", "request-termination"}


def test_everything_prints_as_one_yaml_stream(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--release", "edge", "--replicas", "2"]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    assert len(objects) > 50
    assert "&id" not in dump(objects)
    assert of_kind(objects, "Deployment", "edge-kong")["spec"]["replicas"] == 2
    assert json.dumps(objects)
