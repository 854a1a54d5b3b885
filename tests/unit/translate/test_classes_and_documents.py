"""Sections 1 to 3 of the translation rules: class selection, the document's order, tags and identifiers."""

from __future__ import annotations

import pytest
from made_objects import (
    CLASS,
    consumer,
    draw,
    ingress,
    konghq,
    make,
    only,
    path,
    plugin,
    reasons,
    routes,
    service,
    services,
    upstreams,
)

from konverge.translate import Settings, Translator, render
from konverge.translate.ids import Identifiers
from konverge.translate.settings import for_cluster, parse_version

DEFAULT_CLASS = make("IngressClass", "kong", annotations={"ingressclass.kubernetes.io/is-default-class": "true"})


@pytest.mark.parametrize(
    ("annotation", "field", "is_default", "ours"),
    [
        ("kong", None, False, True),
        ("other", "kong", False, False),
        ("", "kong", False, True),
        (None, "kong", False, True),
        (None, "other", True, False),
        (None, None, False, False),
        (None, None, True, True),
        ("other", None, True, False),
        (None, "", True, False),
    ],
)
def test_s1_class_of_an_ingress(annotation: str | None, field: str | None, is_default: bool, ours: bool) -> None:
    value = ingress()
    del value["spec"]["ingressClassName"]
    if field is not None:
        value["spec"]["ingressClassName"] = field
    if annotation is not None:
        value["metadata"]["annotations"] = {"kubernetes.io/ingress.class": annotation}
    rendered = draw(value, service(), *([DEFAULT_CLASS] if is_default else []))
    assert bool(routes(rendered)) is ours


def test_s1_kong_kinds_need_the_annotation_or_the_default_class() -> None:
    values = [
        make("KongConsumer", "c", username="c"),
        make("KongConsumerGroup", "g"),
        make("KongVault", "v", spec={"backend": "env", "prefix": "p"}),
        make("TCPIngress", "t", spec={"rules": [{"port": 1, "backend": {"serviceName": "svc", "servicePort": 80}}]}),
        make("KongClusterPlugin", "p", plugin="cors", labels={"global": "true"}),
    ]
    assert draw(*values, service()).document == {"_format_version": "3.0", "upstreams": [{"name": "kong"}]}
    taken = draw(*values, service(), DEFAULT_CLASS).document
    assert {"consumers", "consumer_groups", "vaults", "services", "plugins"} <= taken.keys()


def test_s1_another_class_is_configurable() -> None:
    value = ingress(spec={"ingressClassName": "inner"})
    assert routes(draw(value, service(), ingress_class="inner"))


def make_parameters(**fields: object) -> list[object]:
    reference = {
        "apiGroup": "configuration.konghq.com",
        "kind": "IngressClassParameters",
        "scope": "Namespace",
        "namespace": "ns",
        "name": "params",
    }
    return [
        make("IngressClass", "kong", spec={"parameters": {**reference, **fields}}),
        make("IngressClassParameters", "params", spec={"serviceUpstream": True, "enableLegacyRegexDetection": True}),
    ]


def test_s1_parameters_of_the_class() -> None:
    value = ingress("i", path("/v[0-9]", "ImplementationSpecific"), path("~/x[0-9]", "ImplementationSpecific"))
    rendered = draw(value, service(), *make_parameters())
    assert only(upstreams(rendered))["targets"] == [{"target": "svc.ns.svc:80"}]
    assert only(routes(rendered))["paths"] == ["~/v[0-9]", "~/x[0-9]"]


@pytest.mark.parametrize(
    "wrong", [{"apiGroup": "x"}, {"kind": "x"}, {"scope": None}, {"namespace": None}, {"name": "x"}]
)
def test_s1_incomplete_parameters_give_the_defaults(wrong: dict[str, object]) -> None:
    rendered = draw(ingress(), service(), *make_parameters(**wrong))
    assert "targets" not in only(upstreams(rendered))


def test_s1_a_later_source_kind_replaces_the_whole_service() -> None:
    tcp = make(
        "TCPIngress",
        annotations=CLASS,
        spec={"rules": [{"port": 9000, "backend": {"serviceName": "svc", "servicePort": 80}}]},
    )
    rendered = draw(ingress(), tcp, service())
    assert list(routes(rendered)) == ["ns.a.0"]
    assert services(rendered)["ns.svc.80"]["protocol"] == "tcp"


def test_s2_lists_are_sorted_descending_with_dots_above_dashes() -> None:
    names = ("web", "web-2", "api")
    values = [value for name in names for value in (service(name), ingress(name, path(svc=name)))]
    document = draw(*values).document
    assert [entity["name"] for entity in document["services"]] == ["ns.web.80", "ns.web-2.80", "ns.api.80"]
    assert [entity["name"] for entity in document["upstreams"]] == [
        "web.ns.80.svc",
        "web-2.ns.80.svc",
        "api.ns.80.svc",
    ]


def test_s2_consumers_are_sorted_ascending_those_without_username_first() -> None:
    values = [
        consumer("zed"),
        consumer("amy"),
        make("KongConsumer", "x", custom_id="2", annotations=CLASS),
        make("KongConsumer", "y", custom_id="1", annotations=CLASS),
    ]
    found = draw(*values).document["consumers"]
    assert [(entity.get("username"), entity.get("custom_id")) for entity in found] == [
        (None, "1"),
        (None, "2"),
        ("amy", None),
        ("zed", None),
    ]
    assert ["id" in entity for entity in found] == [False, False, True, True]


def test_s2_plugins_are_sorted_by_name_consumer_group_route_and_service() -> None:
    values = [
        plugin("one", plugin="cors"),
        plugin("two", plugin="acl"),
        service(annotations=konghq(plugins="one,two")),
        ingress("ing", annotations=konghq(plugins="one")),
        consumer("bob", annotations=konghq(plugins="two")),
    ]
    found = draw(*values).document["plugins"]
    assert [(entity["name"], entity.get("route"), entity.get("service")) for entity in found] == [
        ("cors", None, "ns.svc.80"),
        ("cors", "ns.ing.svc..80", None),
        ("acl", None, "ns.svc.80"),
    ]
    assert found[2]["consumer"] == "bob"


def test_s2_an_empty_document_gets_a_stub() -> None:
    assert draw().document == {"_format_version": "3.0", "upstreams": [{"name": "kong"}]}
    assert draw().content == b'{"_format_version":"3.0","upstreams":[{"name":"kong"}]}'


def test_s2_custom_entities_do_not_replace_the_stub() -> None:
    value = make("KongCustomEntity", spec={"type": "things", "controllerName": "kong", "fields": {"x": 1}})
    document = draw(value).document
    assert document["upstreams"] == [{"name": "kong"}]
    assert document["things"] == [{"x": 1}]


def test_s3_tags_name_the_object_and_user_tags_come_last() -> None:
    value = ingress(uid="u-1", annotations=konghq(tags=" b , a,,b"))
    assert only(routes(draw(value, service())))["tags"] == [
        "k8s-name:ing",
        "k8s-namespace:ns",
        "k8s-kind:Ingress",
        "k8s-uid:u-1",
        "k8s-group:networking.k8s.io",
        "k8s-version:v1",
        "b",
        "a",
    ]


def test_s3_identifiers_of_known_names() -> None:
    ids = Identifiers()
    assert ids.service("default.httpbin.80") == "764d9f4d-c24c-5709-991c-19a96a581f6e"
    assert Identifiers("ws").service("x") == ids.service("ws/x")
    assert Identifiers("", enabled=False).route("x") is None


def test_s3_identifiers_can_be_switched_off() -> None:
    rendered = draw(ingress(), service(), consumer(), FillIDs=False)
    assert "id" not in only(services(rendered))
    assert "id" not in only(routes(rendered))
    assert "id" not in rendered.document["consumers"][0]


def test_versions_that_mean_the_same_are_read_and_others_are_problems() -> None:
    old = ingress()
    old["apiVersion"] = "networking.k8s.io/v1beta1"
    route = make("HTTPRoute", spec={"rules": [{"backendRefs": []}]})
    route["apiVersion"] = "gateway.networking.k8s.io/v1beta1"
    rendered = draw(old, route, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})
    assert reasons(rendered) == [("UnsupportedVersion", "Ingress/ing")]
    assert "k8s-version:v1" in only(routes(rendered))["tags"]


def test_a_malformed_object_takes_the_place_of_a_good_one_until_it_is_repaired() -> None:
    translator = Translator()
    for value in (ingress(), service()):
        translator.apply("ADDED", value)
    good = translator.render().content
    broken = ingress()
    broken["spec"]["rules"][0]["host"] = 5
    translator.apply("MODIFIED", broken)
    rendered = translator.render()
    assert not routes(rendered)
    (problem,) = rendered.problems
    assert problem.message == "The field spec.rules[0].host must be a string."
    translator.apply("MODIFIED", ingress())
    assert translator.render().content == good
    assert translator.render().problems == ()


@pytest.mark.parametrize("group", ["serving.knative.dev/v1", "configuration.konghq.com/v1"])
@pytest.mark.parametrize("event", ["DELETED", "ADDED"])
def test_a_kind_of_another_group_leaves_ours_alone(group: str, event: str) -> None:
    translator = Translator()
    translator.replace([ingress(), service()])
    good = translator.render().content
    foreign = {**service(), "apiVersion": group}
    translator.apply(event, foreign)
    assert translator.render().content == good
    translator.replace([ingress(), foreign])
    assert only(services(translator.render()))["tags"][0] == "k8s-name:UNKNOWN"


def test_numbers_are_written_as_a_decoder_of_doubles_writes_them() -> None:
    config = {"whole": 5.0, "half": 0.5, "large": 2**60 + 1, "huge": 10**30}
    rendered = draw(plugin(config=config), service(annotations=konghq(plugins="plug")), ingress())
    found = rendered.document["plugins"][0]["config"]
    assert found == {"whole": 5, "half": 0.5, "large": 2**60, "huge": 1e30}
    assert type(found["whole"]) is int


def test_settings_of_a_running_installation() -> None:
    assert for_cluster(kong_version="3.9.0").on("SupportRedirectPlugin")
    assert not for_cluster(kong_version="3.8.1").on("SupportRedirectPlugin")
    assert not for_cluster(features={"SupportRedirectPlugin": False}).on("SupportRedirectPlugin")
    assert parse_version("3.11.0-rc.1") == (3, 11, 0)
    assert parse_version("nonsense") == (0, 0, 0)


def test_of_equal_identities_the_last_one_counts() -> None:
    first, second = ingress(host="one.example.com"), ingress(host="two.example.com")
    assert only(routes(render([first, service(), second], Settings())))["hosts"] == ["two.example.com"]
