"""Section 11: certificates, client certificates, BackendTLSPolicy, CA certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from made_certificates import AUTHORITY, EXPIRED_AUTHORITY, PAIRS
from made_objects import (
    GATEWAY,
    draw,
    gateway,
    ingress,
    konghq,
    make,
    only,
    plugin,
    reasons,
    secret,
    service,
    services,
    upstreams,
)

from konverge.translate import Settings, Translator

CONTROLLER = "konghq.com/kic-gateway-controller"


def tls_secret(name: str = "tls", pair: int = 0, namespace: str = "ns", **fields: Any) -> dict[str, Any]:
    certificate, key = PAIRS[pair]
    values = {"tls.crt": f"\n{certificate}\n \n", "tls.key": f"{key}\n"}
    return secret(name, namespace, values=values, uid=fields.pop("uid", f"uid-{name}"), **fields)


def with_tls(name: str, *sections: tuple[list[str], str], created: int = 1) -> dict[str, Any]:
    tls = [{"hosts": hosts, "secretName": secret_name} for hosts, secret_name in sections]
    return ingress(name, spec={"tls": tls}, created=created)


def names(certificate: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in certificate.get("snis", [])]


def test_s11_1_a_certificate() -> None:
    (found,) = draw(with_tls("i", (["b.org", "a.org"], "tls")), service(), tls_secret()).document["certificates"]
    assert (found["id"], found["cert"], found["key"]) == ("uid-tls", *PAIRS[0])
    assert found["snis"] == [
        {"name": "a.org", "certificate": {"id": "uid-tls"}},
        {"name": "b.org", "certificate": {"id": "uid-tls"}},
    ]
    assert found["tags"][0] == "k8s-name:tls"


def test_s11_1_a_host_goes_to_the_first_secret_of_the_oldest_object() -> None:
    values = [
        with_tls("young", (["a.org", "y.org"], "one"), created=2),
        with_tls("old", (["a.org"], "two"), created=1),
    ]
    rendered = draw(*values, service(), tls_secret("one"), tls_secret("two", 1))
    assert {found["id"]: names(found) for found in rendered.document["certificates"]} == {
        "uid-one": ["y.org"],
        "uid-two": ["a.org"],
    }


def test_s11_1_a_secret_without_hosts_of_its_own_is_kept() -> None:
    values = [with_tls("i", (["a.org"], "one"), (["a.org"], "two"), ([], "three"), (["x.org"], ""))]
    rendered = draw(*values, service(), tls_secret("one"), tls_secret("two", 1))
    assert sorted(len(names(found)) for found in rendered.document["certificates"]) == [0, 1]


@pytest.mark.parametrize(
    "values",
    [
        {"tls.crt": PAIRS[0][0]},
        {"tls.crt": PAIRS[0][0], "tls.key": PAIRS[1][1]},
        {"tls.crt": "x", "tls.key": "y"},
        {"tls.crt": PAIRS[0][1], "tls.key": PAIRS[0][1]},
    ],
)
def test_s11_1_bad_pairs_leave_the_routes_alone(values: dict[str, str]) -> None:
    rendered = draw(with_tls("i", (["a.org"], "tls")), service(), secret("tls", values=values))
    assert "certificates" not in rendered.document
    assert services(rendered)
    assert reasons(rendered) == [("TlsSecretInvalid", "Ingress/i"), ("TlsSecretInvalid", "Secret/tls")]
    assert "PRIVATE" not in repr(rendered.problems)


def test_s11_1_a_missing_secret() -> None:
    rendered = draw(with_tls("i", (["a.org"], "tls")), service())
    assert reasons(rendered) == [("TlsSecretNotFound", "Ingress/i")]


def test_s11_1_a_secret_without_uid_gives_an_empty_id() -> None:
    value = tls_secret()
    del value["metadata"]["uid"]
    assert draw(with_tls("i", (["a.org"], "tls")), service(), value).document["certificates"][0]["id"] == ""


def test_s11_merge_of_equal_certificates_takes_the_oldest_secret() -> None:
    values = [
        with_tls("i", (["a.org"], "one"), (["b.org"], "two"), (["c.org"], "three")),
        tls_secret("one", created=3),
        tls_secret("two", created=1, uid="u-b"),
        tls_secret("three", created=1, uid="u-a"),
    ]
    (found,) = draw(*values, service()).document["certificates"]
    assert (found["id"], names(found)) == ("u-a", ["a.org", "b.org", "c.org"])


def gateway_objects(**fields: Any) -> list[dict[str, Any]]:
    listener = {"name": "l", "protocol": "HTTPS", "port": 443, "hostname": "g.org", **fields}
    listener.setdefault("tls", {"certificateRefs": [{"name": "tls"}]})
    return [
        make("GatewayClass", "cls", spec={"controllerName": CONTROLLER}),
        gateway(listener, status={"listeners": [{"name": "l"}]}),
        tls_secret(),
    ]


def test_s11_2_a_listeners_certificate() -> None:
    (found,) = draw(*gateway_objects(), gateway_controller=CONTROLLER).document["certificates"]
    assert names(found) == ["g.org"]
    (found,) = draw(*gateway_objects(hostname=None), gateway_controller=CONTROLLER).document["certificates"]
    assert names(found) == ["*"]


def test_s11_2_another_controllers_gateway_gives_nothing() -> None:
    assert "certificates" not in draw(*gateway_objects(), gateway_controller="other").document


def test_s11_2_a_listener_needs_a_status() -> None:
    values = gateway_objects()
    values[1]["status"] = {"listeners": [{"name": "other"}]}
    assert "certificates" not in draw(*values, gateway_controller=CONTROLLER).document


@pytest.mark.parametrize(
    ("condition", "good"),
    [
        ({}, True),
        ({"status": "False"}, False),
        ({"reason": "Pending"}, False),
        ({"observedGeneration": 1}, False),
        ({"type": "Accepted"}, False),
    ],
)
def test_s11_2_unmanaged_gateways_must_be_programmed(condition: dict[str, Any], good: bool) -> None:
    values = gateway_objects()
    values[0]["metadata"]["annotations"] = konghq(gatewayclass_unmanaged="true")
    values[1]["metadata"]["generation"] = 2
    programmed = {"type": "Programmed", "status": "True", "reason": "Programmed", "observedGeneration": 2}
    values[1]["status"] = {"listeners": [{"name": "l", "conditions": [{**programmed, **condition}]}]}
    assert ("certificates" in draw(*values, gateway_controller=CONTROLLER).document) is good


def test_s11_2_one_certificate_ref_and_grants() -> None:
    many = gateway_objects(tls={"certificateRefs": [{"name": "tls"}, {"name": "tls"}]})
    assert reasons(draw(*many, gateway_controller=CONTROLLER)) == [("CertificateRefsUnsupported", "Gateway/gw")]
    far = gateway_objects(tls={"certificateRefs": [{"name": "far", "namespace": "other"}]})
    far.append(tls_secret("far", 0, "other"))
    assert reasons(draw(*far, gateway_controller=CONTROLLER)) == [("CertificateRefsUnsupported", "Gateway/gw")]
    spec = {
        "from": [{"group": GATEWAY, "kind": "Gateway", "namespace": "ns"}],
        "to": [{"group": "", "kind": "Secret"}],
    }
    far.append(make("ReferenceGrant", "g", "other", spec=spec))
    assert draw(*far, gateway_controller=CONTROLLER).document["certificates"]


def test_s11_ingress_claims_come_before_gateways() -> None:
    values = [*gateway_objects(), with_tls("i", (["g.org"], "two")), tls_secret("two", 1), service()]
    rendered = draw(*values, gateway_controller=CONTROLLER)
    assert {found["id"]: names(found) for found in rendered.document["certificates"]} == {
        "uid-tls": [],
        "uid-two": ["g.org"],
    }
    assert reasons(rendered) == [("SniClaimedTwice", "Secret/tls")]


def with_client(**annotations: str) -> dict[str, Any]:
    return service(annotations=konghq(client_cert="tls", **annotations))


@pytest.mark.parametrize(
    ("protocol", "good"),
    [("https", True), ("grpcs", True), ("wss", True), ("tls", True), ("http", False), ("tcp", False), ("ws", False)],
)
def test_s11_3_a_client_certificate_needs_tls(protocol: str, good: bool) -> None:
    rendered = draw(ingress(), with_client(protocol=protocol), tls_secret())
    assert only(services(rendered)).get("client_certificate") == ("uid-tls" if good else None)
    assert ("certificates" in rendered.document) is good
    assert reasons(rendered) == ([] if good else [("ClientCertificateInvalid", "Service/svc")])


def test_s11_3_a_client_certificate_needs_its_secret() -> None:
    rendered = draw(ingress(), with_client(protocol="https"))
    assert reasons(rendered) == [("ClientCertificateInvalid", "Service/svc")]
    bad = draw(ingress(), with_client(protocol="https"), secret("tls", values={"tls.crt": "x"}))
    assert "client_certificate" not in only(services(bad))


def test_s11_3_the_client_certificate_is_the_merged_one() -> None:
    values = [with_client(protocol="https"), tls_secret(created=2), tls_secret("two", created=1)]
    rendered = draw(with_tls("i", (["a.org"], "two")), *values)
    assert only(services(rendered))["client_certificate"] == "uid-two"


def authority(name: str = "ca", /, kind: str = "Secret", text: str = AUTHORITY, **fields: Any) -> dict[str, Any]:
    values = {"id": fields.pop("id", "ca-1"), fields.pop("field", "cert"): text}
    labels = fields.pop("labels", {"konghq.com/ca-cert": "true"})
    if kind == "ConfigMap":
        return make("ConfigMap", name, data=values, labels=labels, **fields)
    return secret(name, values=values, labels=labels, **fields)


def test_s11_3_ca_lists() -> None:
    annotations = konghq(
        protocol="https", tls_verify="true", ca_certificates_secrets="ca,gone", ca_certificates_configmaps="map"
    )
    values = [authority(), authority("map", "ConfigMap", id="ca-2")]
    rendered = draw(ingress(), service(annotations=annotations), *values)
    assert only(services(rendered))["ca_certificates"] == ["ca-1", "ca-2"]
    assert reasons(rendered) == [("CaCertificatesInvalid", "Service/svc")]


@pytest.mark.parametrize("annotations", [{"protocol": "https"}, {"protocol": "http", "tls_verify": "true"}])
def test_s11_3_ca_lists_need_verification_and_tls(annotations: dict[str, str]) -> None:
    value = service(annotations=konghq(ca_certificates_secrets="ca", **annotations))
    rendered = draw(ingress(), value, authority())
    assert "ca_certificates" not in only(services(rendered))
    assert reasons(rendered) == [("CaCertificatesInvalid", "Service/svc")]


def tls_policy(name: str = "p", **fields: Any) -> dict[str, Any]:
    validation = {"hostname": "v.org", "caCertificateRefs": [{"kind": "ConfigMap", "name": "map", "group": ""}]}
    spec = {"targetRefs": [{"group": "", "kind": "Service", "name": "svc"}], "validation": validation, **fields}
    return make("BackendTLSPolicy", name, spec=spec)


def test_s11_3_a_backend_tls_policy() -> None:
    value = tls_policy(options={"tls-verify-depth": "2"})
    rendered = draw(ingress(), service(), value, authority("map", "ConfigMap"))
    entity = only(services(rendered))
    assert (entity["protocol"], entity["tls_verify"], entity["tls_verify_depth"]) == ("https", True, 2)
    assert entity["ca_certificates"] == ["ca-1"]
    assert only(upstreams(rendered))["host_header"] == "v.org"


def test_s11_3_a_negative_depth_is_ignored() -> None:
    rendered = draw(
        ingress(), service(), tls_policy(options={"tls-verify-depth": "-1"}), authority("map", "ConfigMap")
    )
    assert "tls_verify_depth" not in only(services(rendered))


def test_s11_3_several_policies_cancel_each_other() -> None:
    rendered = draw(ingress(), service(), tls_policy("one"), tls_policy("two"))
    assert only(services(rendered))["protocol"] == "http"
    assert reasons(rendered) == [("BackendTlsPolicyConflict", "Service/svc")]


@pytest.mark.parametrize("target", [{"kind": "Other"}, {"group": "x"}, {"name": "else"}])
def test_s11_3_policies_of_other_targets(target: dict[str, str]) -> None:
    targets = [{"group": "", "kind": "Service", "name": "svc", **target}]
    assert only(services(draw(ingress(), service(), tls_policy(targetRefs=targets))))["protocol"] == "http"


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
@pytest.mark.parametrize("field", ["cert", "ca.crt"])
def test_s11_4_ca_certificates(kind: str, field: str) -> None:
    (found,) = draw(authority(kind=kind, field=field)).document["ca_certificates"]
    assert (found["id"], found["cert"]) == ("ca-1", AUTHORITY)
    assert found["tags"][0] == "k8s-name:ca"


@pytest.mark.parametrize("text", ["", "x", PAIRS[0][0], PAIRS[0][1], AUTHORITY + AUTHORITY])
def test_s11_4_bad_ca_certificates(text: str) -> None:
    rendered = draw(authority(text=text), plugin(config={"ca_certificates": ["ca-1"]}), ingress(), service())
    assert "ca_certificates" not in rendered.document
    assert ("CaCertificateInvalid", "Secret/ca") in reasons(rendered)


def test_s11_4_plugins_that_name_a_bad_ca_are_told() -> None:
    values = [
        ingress(),
        service(annotations=konghq(plugins="plug")),
        plugin(config={"ca_certificates": ["ca-1", "x"]}),
    ]
    rendered = draw(authority(text="x"), *values)
    assert reasons(rendered) == [("CaCertificateInvalid", "KongPlugin/plug"), ("CaCertificateInvalid", "Secret/ca")]


def test_s11_4_a_ca_needs_an_id_and_the_label() -> None:
    assert reasons(draw(authority(id=""))) == [("CaCertificateInvalid", "Secret/ca")]
    assert "ca_certificates" not in draw(authority(labels={})).document


def test_s11_4_of_equal_ids_the_oldest_counts() -> None:
    rendered = draw(authority("b", created=2), authority("c", "ConfigMap", created=1), authority("a", created=2))
    assert rendered.document["ca_certificates"][0]["tags"][0] == "k8s-name:c"
    assert reasons(rendered) == [("CaCertificateDuplicate", "Secret/a"), ("CaCertificateDuplicate", "Secret/b")]


def test_s11_4_an_expired_ca_is_left_out_once_it_expires() -> None:
    translator = Translator(Settings())
    translator.apply("ADDED", authority(text=EXPIRED_AUTHORITY))
    expiry = datetime(2024, 1, 2, tzinfo=UTC)
    assert "ca_certificates" in translator.render().document
    assert "ca_certificates" in translator.render(expiry - timedelta(seconds=1)).document
    late = translator.render(expiry)
    assert "ca_certificates" not in late.document
    assert reasons(late) == [("CaCertificateInvalid", "Secret/ca")]
