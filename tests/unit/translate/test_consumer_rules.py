"""Sections 9 and 10: consumers, credentials, groups, vaults, custom entities, licenses."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    KONG,
    consumer,
    credential,
    draw,
    ingress,
    konghq,
    make,
    plugin,
    reasons,
    secret,
    service,
)

from konverge.translate.ids import Identifiers


def test_s9_a_consumer_needs_an_identity() -> None:
    rendered = draw(make("KongConsumer", "x", annotations=CLASS))
    assert "consumers" not in rendered.document
    assert reasons(rendered) == [("ConsumerWithoutIdentity", "KongConsumer/x")]


@pytest.mark.parametrize(
    ("type_name", "field", "values", "result"),
    [
        ("key-auth", "keyauth_credentials", {"key": "k", "ttl": "5", "x": "y"}, {"key": "k", "ttl": 5}),
        ("key-auth", "keyauth_credentials", {"KEY": "k"}, {"key": "k"}),
        ("key-auth", "keyauth_credentials", {"key": ""}, {"key": ""}),
        ("basic-auth", "basicauth_credentials", {"username": "u", "password": "p"},
         {"username": "u", "password": "p"}),
        ("hmac-auth", "hmacauth_credentials", {"username": "u", "secret": "s"}, {"username": "u", "secret": "s"}),
        ("jwt", "jwt_secrets", {"key": "k", "algorithm": ""}, {"key": "k", "algorithm": "HS256"}),
        ("jwt", "jwt_secrets", {"key": "k", "algorithm": "RS256", "rsa_public_key": "r", "secret": "s"},
         {"key": "k", "algorithm": "RS256", "rsa_public_key": "r", "secret": "s"}),
        ("oauth2", "oauth2_credentials", {"name": "n", "client_id": "i", "redirect_uris": "a,b", "hash_secret": "T"},
         {"name": "n", "client_id": "i", "redirect_uris": ["a", "b"], "hash_secret": True}),
        ("acl", "acls", {"group": "g", "id": "i"}, {"group": "g", "id": "i"}),
        ("mtls-auth", "mtls_auth_credentials", {"subject_name": "s"}, {"subject_name": "s"}),
    ],
)  # fmt: skip
def test_s9_credentials(type_name: str, field: str, values: dict[str, str], result: dict[str, Any]) -> None:
    rendered = draw(consumer("bob", credentials=["sec"]), credential("sec", type_name, **values))
    (found,) = rendered.document["consumers"][0][field]
    tags = found.pop("tags")
    assert found == result
    assert tags[0] == "k8s-name:sec"
    assert not rendered.problems


@pytest.mark.parametrize(
    ("type_name", "values"),
    [
        ("key-auth", {}),
        ("basic-auth", {"password": "p"}),
        ("hmac-auth", {}),
        ("jwt", {}),
        ("oauth2", {"name": "n"}),
        ("acl", {}),
        ("mtls-auth", {}),
        ("unknown", {"key": "k"}),
    ],
)
def test_s9_incomplete_credentials_are_left_out(type_name: str, values: dict[str, str]) -> None:
    rendered = draw(consumer("bob", credentials=["sec", "gone"]), credential("sec", type_name, **values))
    assert set(rendered.document["consumers"][0]) == {"id", "username", "tags"}
    assert reasons(rendered) == [("CredentialInvalid", "KongConsumer/bob")] * 2


def test_s9_the_old_type_field_is_not_read() -> None:
    old = secret("sec", values={"kongCredType": "key-auth", "key": "k"})
    rendered = draw(consumer("bob", credentials=["sec"]), old)
    assert "keyauth_credentials" not in rendered.document["consumers"][0]


@pytest.mark.parametrize(
    ("type_name", "values", "result"),
    [
        ("key-auth", {"key": "k", "ttl": "x"}, {"key": "k"}),
        (
            "oauth2",
            {"name": "n", "client_id": "i", "hash_secret": "x"},
            {"name": "n", "client_id": "i", "hash_secret": False},
        ),
    ],
)
def test_s9_single_fields_that_are_dropped(type_name: str, values: dict[str, str], result: dict[str, Any]) -> None:
    rendered = draw(consumer("bob", credentials=["sec"]), credential("sec", type_name, **values))
    entity = rendered.document["consumers"][0]
    (found,) = next(value for name, value in entity.items() if name.endswith("credentials"))
    del found["tags"]
    assert found == result
    assert reasons(rendered) == [("CredentialInvalid", "KongConsumer/bob")]


@pytest.mark.parametrize(
    ("type_name", "one", "other", "conflict"),
    [
        ("key-auth", {"key": "k"}, {"key": "k"}, True),
        ("key-auth", {"key": "k"}, {"key": "l"}, False),
        ("basic-auth", {"username": "u", "password": "1"}, {"username": "u", "password": "2"}, True),
        ("hmac-auth", {"username": "u"}, {"username": "u"}, True),
        ("jwt", {"key": "k"}, {"key": "k"}, True),
        ("oauth2", {"name": "a", "client_id": "i"}, {"name": "b", "client_id": "i"}, True),
        ("acl", {"group": "g"}, {"group": "g"}, False),
        ("mtls-auth", {"subject_name": "s"}, {"subject_name": "s"}, False),
    ],
)
def test_s9_equal_credentials_remove_all_their_consumers(
    type_name: str, one: dict[str, str], other: dict[str, str], conflict: bool
) -> None:
    rendered = draw(
        plugin(),
        consumer("amy", credentials=["one"], annotations=konghq(plugins="plug")),
        consumer("bob", credentials=["two"]),
        consumer("cid"),
        credential("one", type_name, **one),
        credential("two", type_name, **other),
    )
    names = [entity["username"] for entity in rendered.document["consumers"]]
    assert names == (["cid"] if conflict else ["amy", "bob", "cid"])
    assert ("plugins" in rendered.document) is not conflict
    assert ({reason for reason, _ in reasons(rendered)} == {"CredentialConflict"}) is conflict
    if conflict:
        assert {who for _, who in reasons(rendered)} == {
            "KongConsumer/amy",
            "KongConsumer/bob",
            "Secret/one",
            "Secret/two",
        }


def test_s9_a_conflict_within_one_consumer() -> None:
    values = [credential("one", "key-auth", key="k"), credential("two", "key-auth", key="k")]
    assert "consumers" not in draw(consumer("amy", credentials=["one", "two"]), *values).document


def test_s9_basic_and_hmac_names_are_apart() -> None:
    values = [credential("one", "basic-auth", username="u"), credential("two", "hmac-auth", username="u")]
    assert draw(consumer("amy", credentials=["one", "two"]), *values).document["consumers"]


def test_problems_and_reprs_show_no_credential() -> None:
    values = [
        credential("one", "key-auth", key="hush-hush", ttl="hush-hush"),
        credential("two", "key-auth", key="hush-hush"),
    ]
    rendered = draw(consumer("amy", credentials=["one"]), consumer("bob", credentials=["two"]), *values)
    assert rendered.problems
    assert "hush-hush" not in repr(rendered.problems) + repr(rendered)


def test_s9_groups_and_memberships() -> None:
    group = make("KongConsumerGroup", "gold", annotations=CLASS, spec={"name": "unused"})
    rendered = draw(group, consumer("bob", consumerGroups=["gold", "gone"]))
    assert rendered.document["consumer_groups"][0]["name"] == "gold"
    assert rendered.document["consumer_group_consumers"] == [{"consumer": "bob", "consumer_group": "gold"}]
    assert reasons(rendered) == [("ConsumerGroupNotFound", "KongConsumer/bob")]


def vault(name: str = "v", /, prefix: str = "pre", **fields: Any) -> dict[str, Any]:
    spec = {"backend": "env", "prefix": prefix, **fields.pop("spec", {})}
    return make("KongVault", name, annotations=CLASS, spec=spec, **fields)


def test_s10_vaults() -> None:
    rendered = draw(
        vault(spec={"description": "d", "config": {"prefix": "K"}}), vault("w", "zed", spec={"config": {}})
    )
    zed, pre = rendered.document["vaults"]
    assert (pre["name"], pre["prefix"], pre["description"], pre["config"]) == ("env", "pre", "d", {"prefix": "K"})
    assert pre["id"] == Identifiers().vault("pre")
    assert "config" not in zed


def test_s10_of_equal_prefixes_the_oldest_vault_stays() -> None:
    rendered = draw(vault("a", created=2), vault("b", created=1), vault("c", created=1))
    assert rendered.document["vaults"][0]["tags"][0] == "k8s-name:b"
    assert reasons(rendered) == [("VaultPrefixDuplicate", "KongVault/a"), ("VaultPrefixDuplicate", "KongVault/c")]


def test_s10_a_vault_with_a_bad_configuration() -> None:
    assert reasons(draw(vault(spec={"config": [1]}))) == [("VaultInvalid", "KongVault/v")]


def custom(name: str = "e", /, kind: str = "degraphql_routes", parent: Any = None, **fields: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"type": kind, "controllerName": "kong", "fields": {"uri": "/q"}, **fields}
    if parent is not None:
        spec["parentRef"] = {"group": KONG, "kind": "KongPlugin", "name": "plug", **parent}
    return make("KongCustomEntity", name, spec=spec)


def test_s10_custom_entities_are_linked_to_what_their_plugin_works_on() -> None:
    values = [custom(parent={}), plugin(), ingress()]
    by_service = draw(*values, service(annotations=konghq(plugins="plug"))).document["degraphql_routes"]
    assert by_service == [{"uri": "/q", "service": {"id": Identifiers().service("ns.svc.80")}}]
    values[2] = ingress(annotations=konghq(plugins="plug"))
    assert draw(*values, service()).document["degraphql_routes"] == by_service


def test_s10_custom_entities_without_relations_or_parent() -> None:
    assert draw(custom()).document["degraphql_routes"] == [{"uri": "/q"}]
    assert draw(custom(parent={}), plugin()).document["degraphql_routes"] == [{"uri": "/q"}]


def test_s10_custom_entities_are_combined_and_sorted() -> None:
    schema = {"fields": [{"service": {"type": "foreign", "reference": "services"}},
                         {"consumer": {"type": "foreign", "reference": "consumers"}}]}  # fmt: skip
    annotations = konghq(plugins="plug")
    values = [custom(kind="things", parent={}), plugin(), ingress(), service(annotations=annotations)]
    values += [consumer("amy", annotations=annotations), consumer("bob", annotations=annotations)]
    found = draw(*values, entity_schemas={"things": schema}).document["things"]
    assert [entity["consumer"]["id"] for entity in found] == sorted(
        [Identifiers().consumer("amy") or "", Identifiers().consumer("bob") or ""]
    )
    assert all(entity["service"]["id"] for entity in found)


@pytest.mark.parametrize(
    "kind", ["services", "routes", "upstreams", "targets", "consumers", "consumer_groups", "plugins", ""]
)
def test_s10_known_types_are_no_custom_entities(kind: str) -> None:
    rendered = draw(custom(kind=kind), ingress(), service())
    assert reasons(rendered) == [("CustomEntityInvalid", "KongCustomEntity/e")]


def test_s10_a_custom_entity_needs_its_plugin_and_a_grant() -> None:
    assert reasons(draw(custom(parent={}))) == [("CustomEntityInvalid", "KongCustomEntity/e")]
    far = [custom(parent={"namespace": "other"}), plugin("plug", "other")]
    assert reasons(draw(*far)) == [("CustomEntityInvalid", "KongCustomEntity/e")]
    spec = {
        "from": [{"group": KONG, "kind": "KongCustomEntity", "namespace": "ns"}],
        "to": [{"group": KONG, "kind": "KongPlugin"}],
    }
    assert not reasons(draw(*far, make("ReferenceGrant", "g", "other", spec=spec)))


def test_s10_custom_entities_of_another_class_or_with_the_feature_off() -> None:
    assert "degraphql_routes" not in draw(custom(controllerName="other")).document
    assert "degraphql_routes" not in draw(custom(), KongCustomEntity=False).document


def test_s10_the_newest_enabled_license() -> None:
    values = [
        make("KongLicense", "old", rawLicenseString="1", created=1),
        make("KongLicense", "new", rawLicenseString="2", created=3),
        make("KongLicense", "mew", rawLicenseString="3", created=3),
        make("KongLicense", "off", rawLicenseString="4", created=9, enabled=False),
    ]
    assert "licenses" not in draw(*values).document
    (found,) = draw(*values, EnterpriseEdition=True).document["licenses"]
    assert found == {"id": Identifiers().license("KongLicense:mew"), "payload": "3"}
    assert draw(*values, enterprise=True).document["licenses"] == [found]
