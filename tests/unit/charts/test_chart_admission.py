"""The webhook that the chart registers, and the certificate it is called with."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from chart_rendering import NAMESPACE, RELEASE, Helm, Object, find, pods_of
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from konverge.controller.admission import PATH

WEBHOOK = f"konverge-{NAMESPACE}-{RELEASE}"
SECRET = f"{RELEASE}-admission"


def render(helm: Helm, **certificate: str) -> list[Object]:
    return helm.render(admission__enabled=True, admission__certificate=certificate)


def webhook_of(objects: list[Object]) -> Object:
    (webhook,) = find(objects, "ValidatingWebhookConfiguration", WEBHOOK)["webhooks"]
    return dict(webhook)


def certificate_volume(objects: list[Object]) -> str:
    (volume,) = [v for v in pods_of(objects)[f"{RELEASE}-controller"]["volumes"] if v["name"] == "admission"]
    return str(volume["secret"]["secretName"])


def test_nothing_is_registered_by_default(objects: list[Object]) -> None:
    assert "ValidatingWebhookConfiguration" not in {item["kind"] for item in objects}
    assert "admission" not in str(pods_of(objects)[f"{RELEASE}-controller"])


def test_it_holds_nobody_up_and_asks_about_this_namespace_alone(helm: Helm) -> None:
    webhook = webhook_of(render(helm))
    assert (webhook["failurePolicy"], webhook["sideEffects"], webhook["timeoutSeconds"]) == ("Ignore", "None", 5)
    assert webhook["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    (rule,) = webhook["rules"]
    assert (rule["apiGroups"], rule["resources"]) == (["konverge.dev"], ["proxyfleets"])
    assert rule["operations"] == ["CREATE", "UPDATE"]


def test_the_webhook_leads_to_where_the_controller_listens(helm: Helm) -> None:
    objects = render(helm)
    target = webhook_of(objects)["clientConfig"]["service"]
    ports = {port["port"]: port["targetPort"] for port in find(objects, "Service", target["name"])["spec"]["ports"]}
    assert (target["namespace"], target["path"]) == (NAMESPACE, PATH)
    (container,) = pods_of(objects)[f"{RELEASE}-controller"]["containers"]
    assert f"--admission-listen=0.0.0.0:{ports[target['port']]}" in container["args"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/etc/konverge/admission"] == "admission"
    assert "--admission-certificate=/etc/konverge/admission" in container["args"]


def test_the_generated_certificate_is_for_the_service(helm: Helm) -> None:
    objects = render(helm)
    data = {key: base64.b64decode(value) for key, value in find(objects, "Secret", SECRET)["data"].items()}
    bundle = base64.b64decode(webhook_of(objects)["clientConfig"]["caBundle"])
    assert bundle == data["ca.crt"]
    leaf, authority = x509.load_pem_x509_certificate(data["tls.crt"]), x509.load_pem_x509_certificate(bundle)
    leaf.verify_directly_issued_by(authority)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [f"{RELEASE}-controller.{NAMESPACE}.svc"]
    assert load_pem_private_key(data["tls.key"], None).public_key() == leaf.public_key()
    assert certificate_volume(objects) == SECRET


def test_cert_manager_makes_it_and_fills_in_its_authority(helm: Helm) -> None:
    objects = render(helm, source="cert-manager", issuer="web", issuerKind="ClusterIssuer")
    spec = find(objects, "Certificate", SECRET)["spec"]
    assert spec["issuerRef"] == {"name": "web", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    assert spec["dnsNames"] == [f"{RELEASE}-controller.{NAMESPACE}.svc"]
    assert spec["secretName"] == certificate_volume(objects)
    configuration = find(objects, "ValidatingWebhookConfiguration", WEBHOOK)
    assert configuration["metadata"]["annotations"] == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{SECRET}"}
    assert "caBundle" not in webhook_of(objects)["clientConfig"]


def test_a_given_secret_is_used_as_it_is(helm: Helm) -> None:
    objects = render(helm, source="secret", secret="mine", caBundle="eA==")
    assert "Secret" not in {item["kind"] for item in objects}
    assert certificate_volume(objects) == "mine"
    assert webhook_of(objects)["clientConfig"]["caBundle"] == "eA=="


@pytest.mark.parametrize("enabled", [True, False])
def test_the_port_is_only_there_when_it_is_used(helm: Helm, enabled: bool) -> None:
    objects: Any = helm.render(admission__enabled=enabled)
    ports = [port["name"] for port in find(objects, "Service", f"{RELEASE}-controller")["spec"]["ports"]]
    assert ports == (["health", "admission"] if enabled else ["health"])
