"""Section 8 and the plugin defaults of section 2."""

from __future__ import annotations

from typing import Any

import pytest
from made_objects import (
    CLASS,
    KONG,
    consumer,
    draw,
    http_route,
    ingress,
    konghq,
    make,
    plugin,
    reasons,
    ref,
    secret,
    service,
)

from konverge.translate.defaults import fill_plugin
from konverge.translate.plugin_config import ConfigError, add
from konverge.translate.plugins import hash_places

PLACES = ("consumer", "consumer_group", "route", "service")


def entries(*objects: Any, **settings: Any) -> list[dict[str, Any]]:
    return draw(*objects, **settings).document.get("plugins", [])


def relations(*objects: Any) -> list[dict[str, str]]:
    return [{place: entry[place] for place in PLACES if place in entry} for entry in entries(*objects)]


def group(name: str = "grp", **annotations: str) -> dict[str, Any]:
    return make("KongConsumerGroup", name, annotations={**CLASS, **konghq(**annotations)})


WANTS = {"plugins": "plug"}


def test_s8_a_service_and_a_route_give_an_entry_each() -> None:
    found = relations(plugin(), ingress(annotations=konghq(**WANTS)), service(annotations=konghq(**WANTS)))
    assert found == [{"service": "ns.svc.80"}, {"route": "ns.ing.svc..80"}]


def test_s8_consumers_meet_every_place_and_groups_are_ignored_then() -> None:
    found = relations(
        plugin(),
        ingress(annotations=konghq(**WANTS)),
        service(annotations=konghq(**WANTS)),
        consumer("amy", annotations=konghq(**WANTS)),
        consumer("bob", annotations=konghq(**WANTS)),
        group(**WANTS),
    )
    assert len(found) == 4
    assert all("consumer" in entry and len(entry) == 2 for entry in found)
    assert not any("consumer_group" in entry for entry in found)


def test_s8_groups_meet_every_place() -> None:
    found = relations(plugin(), ingress(annotations=konghq(**WANTS)), service(), group(**WANTS))
    assert found == [{"consumer_group": "grp", "route": "ns.ing.svc..80"}]


def test_s8_consumers_and_groups_alone() -> None:
    assert relations(plugin(), consumer("amy", annotations=konghq(**WANTS)), group(**WANTS)) == [{"consumer": "amy"}]
    assert relations(plugin(), group(**WANTS)) == [{"consumer_group": "grp"}]
    value = make("KongConsumer", "x", custom_id="c-1", annotations={**CLASS, **konghq(**WANTS)})
    assert relations(plugin(), value) == [{"consumer": "c-1"}]


def test_s8_two_services_of_one_kong_service_give_two_equal_entries() -> None:
    values = [service("a", annotations=konghq(**WANTS)), service("b", annotations=konghq(**WANTS))]
    route = http_route("r", {"backendRefs": [ref("a"), ref("b")]})
    found = entries(plugin(instance_name="i"), route, *values)
    assert [entry["service"] for entry in found] == ["httproute.ns.r.0"] * 2
    digest = hash_places((("service", "httproute.ns.r.0"),))
    assert {entry["instance_name"] for entry in found} == {f"i-{digest[:9]}", f"i-{digest}"}


def test_s8_instance_names() -> None:
    assert hash_places((("route", "default.httpbin.httpbin..80"),))[:9] == "21a1f5b5f"
    (found,) = entries(plugin(instance_name="i"), consumer("amy", annotations=konghq(**WANTS)))
    assert found["instance_name"] == f"i-{hash_places((('consumer', 'amy'),))[:9]}"


def test_s8_a_kong_plugin_counts_before_a_cluster_plugin() -> None:
    cluster = make("KongClusterPlugin", "plug", plugin="acl")
    values = [service(annotations=konghq(**WANTS)), ingress(), cluster]
    assert [entry["name"] for entry in entries(*values)] == ["acl"]
    assert [entry["name"] for entry in entries(*values, plugin())] == ["cors"]


def test_s8_a_missing_plugin_is_a_problem_of_every_referrer() -> None:
    rendered = draw(service(annotations=konghq(**WANTS)), ingress(annotations=konghq(**WANTS)))
    assert reasons(rendered) == [("PluginNotFound", "Ingress/ing"), ("PluginNotFound", "Service/svc")]


def grant(kind: str = "Ingress", group: str = "networking.k8s.io", namespace: str = "ns", **to: str) -> Any:
    spec = {
        "from": [{"group": group, "kind": kind, "namespace": namespace}],
        "to": [{"group": KONG, "kind": "KongPlugin", **to}],
    }
    return make("ReferenceGrant", "g", "other", spec=spec)


@pytest.mark.parametrize(
    ("allowed", "granted"),
    [
        (grant(), True),
        (grant(name="plug"), True),
        (grant(name="else"), False),
        (grant(kind="Service"), False),
        (grant(group=""), False),
        (grant(namespace="else"), False),
    ],
)
def test_s8_a_plugin_of_another_namespace_needs_a_grant(allowed: Any, granted: bool) -> None:
    values = [plugin("plug", "other"), ingress(annotations=konghq(plugins="other:plug")), service()]
    rendered = draw(*values, allowed)
    assert bool(rendered.document.get("plugins")) is granted
    assert bool(reasons(rendered)) is not granted


def test_s8_a_namespaced_reference_needs_a_grant_at_home_too() -> None:
    rendered = draw(plugin(), ingress(annotations=konghq(plugins="ns:plug")), service())
    assert reasons(rendered) == [("PluginReferenceNotGranted", "Ingress/ing")]


def test_s8_items_with_a_colon_at_an_end_are_dropped() -> None:
    rendered = draw(plugin(), ingress(annotations=konghq(plugins=":plug,plug:,,")), service())
    assert "plugins" not in rendered.document
    assert not rendered.problems


def test_s8_fields_of_an_entry() -> None:
    ordering = {"before": {"access": ["acl"]}}
    value = plugin(disabled=True, protocols=["http"], ordering=ordering, run_on="first", consumerRef="x")
    (found,) = entries(value, service(annotations=konghq(**WANTS)), ingress())
    assert (found["enabled"], found["protocols"], found["ordering"], found["run_on"]) == (
        False,
        ["http"],
        ordering,
        "first",
    )
    assert "config" not in found
    assert "consumer" not in found


def configured(*objects: Any, **fields: Any) -> tuple[Any, list[Any]]:
    rendered = draw(plugin(**fields), service(annotations=konghq(**WANTS)), ingress(), *objects)
    found = rendered.document.get("plugins", [{}])
    return found[0].get("config"), reasons(rendered)


def source(key: str = "conf", name: str = "sec", **fields: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key, **fields}}


@pytest.mark.parametrize("text", ['{"a": 1}', "a: 1"])
def test_s8_config_from_a_secret(text: str) -> None:
    assert configured(secret("sec", values={"conf": text}), configFrom=source()) == ({"a": 1}, [])


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, {"configFrom": source()}),
        ({"conf": "[1]"}, {"configFrom": source()}),
        ({"conf": "a: [1"}, {"configFrom": source()}),
        ({"conf": "a: &x [1]\nb: *x"}, {"configFrom": source()}),
        ({"conf": "{}"}, {"configFrom": source(name="missing")}),
        ({"conf": "{}"}, {"configFrom": source(), "config": {"a": 1}}),
        ({"conf": "no json"}, {"configPatches": [{"path": "/a", "valueFrom": source()}]}),
        ({"conf": "1"}, {"configPatches": [{"path": "a", "valueFrom": source()}]}),
        ({"conf": "1"}, {"configPatches": [{"path": "/a/b", "valueFrom": source()}], "config": {"a": 1}}),
        ({"conf": "1"}, {"configPatches": [{"path": "", "valueFrom": source()}]}),
    ],
)
def test_s8_an_unusable_configuration_leaves_the_plugin_out(values: dict[str, str], fields: dict[str, Any]) -> None:
    found, problems = configured(secret("sec", values=values), **fields)
    assert found is None
    assert problems == [("PluginConfigInvalid", "KongPlugin/plug")]


def test_s8_config_patches() -> None:
    patches = [
        {"path": "/redis/password", "valueFrom": source("one")},
        {"path": "/list/-", "valueFrom": source("two")},
        {"path": "/a~1b", "valueFrom": source("two")},
    ]
    value = secret("sec", values={"one": '"hush"', "two": "2"})
    found, _ = configured(value, config={"list": [1]}, configPatches=patches)
    assert found == {"redis": {"password": "hush"}, "list": [1, 2], "a/b": 2}


def test_s8_a_cluster_plugin_names_the_namespace_of_the_secret() -> None:
    cluster = make("KongClusterPlugin", "plug", plugin="acl", configFrom=source(namespace="other"))
    hidden = secret("sec", "other", values={"conf": "a: 1"})
    (found,) = entries(cluster, hidden, service(annotations=konghq(**WANTS)), ingress())
    assert found["config"] == {"a": 1}


def test_s8_patches_do_not_change_the_object() -> None:
    value = plugin(config={"a": {}}, configPatches=[{"path": "/a/b", "valueFrom": source()}])
    draw(value, secret("sec", values={"conf": "1"}), service(annotations=konghq(**WANTS)), ingress())
    assert value["config"] == {"a": {}}


@pytest.mark.parametrize(
    ("document", "path", "result"),
    [
        ({}, "/a/b/c", {"a": {"b": {"c": 1}}}),
        ({"a": [1, 2]}, "/a/0", {"a": [1, 1, 2]}),
        ({"a": [{"b": 0}]}, "/a/0/b", {"a": [{"b": 1}]}),
        ({"a": 5}, "", 1),
    ],
)
def test_s8_json_patch_add(document: Any, path: str, result: Any) -> None:
    assert add(document, path, 1) == result


@pytest.mark.parametrize("path", ["a", "/a/9", "/a/x", "/b/c", "/a/9/x"])
def test_s8_json_patch_add_that_leads_nowhere(path: str) -> None:
    with pytest.raises(ConfigError):
        add({"a": [1], "b": 2}, path, 1)


def make_global(name: str, kind: str = "cors", **fields: Any) -> dict[str, Any]:
    return make("KongClusterPlugin", name, plugin=kind, labels={"global": "true"}, annotations=CLASS, **fields)


def test_s8_global_plugins() -> None:
    (found,) = entries(make_global("g", instance_name="mine"))
    assert found["instance_name"] == "mine"
    assert not any(place in found for place in PLACES)
    assert found["id"]


def test_s8_equal_global_plugins_cancel_each_other() -> None:
    rendered = draw(make_global("one"), make_global("two"), make_global("acl", "acl"))
    assert [entry["name"] for entry in rendered.document["plugins"]] == ["acl"]
    assert reasons(rendered) == [
        ("GlobalPluginDuplicate", "KongClusterPlugin/one"),
        ("GlobalPluginDuplicate", "KongClusterPlugin/two"),
    ]


def test_s8_a_global_plugin_that_is_referred_to_appears_both_ways() -> None:
    found = relations(make_global("plug"), service(annotations=konghq(**WANTS)), ingress())
    assert found == [{"service": "ns.svc.80"}, {}]


def test_s8_the_label_means_nothing_on_a_kong_plugin() -> None:
    assert not entries(plugin(labels={"global": "true"}))


SCHEMA: dict[str, Any] = {
    "fields": [
        {"protocols": {"type": "set", "default": ["grpc", "http"]}},
        {
            "config": {
                "type": "record",
                "required": True,
                "fields": [
                    {"minute": {"type": "number"}},
                    {"policy": {"type": "string", "default": "local"}},
                    {"made": {"type": "string", "auto": True}},
                    {
                        "redis": {
                            "type": "record",
                            "required": True,
                            "default": {"port": 7000},
                            "fields": [
                                {"host": {"type": "string"}},
                                {"port": {"type": "integer", "default": 6379}},
                            ],
                        }
                    },
                    {"optional": {"type": "record", "fields": [{"x": {"default": 1}}]}},
                    {"rules": {"type": "array", "elements": {"type": "record", "fields": [{"n": {"default": 1}}]}}},
                    {"replaced": {"type": "string", "default": "new"}},
                ],
                "shorthand_fields": [
                    {"old": {"type": "string", "deprecation": {"replaced_with": [{"path": ["replaced"]}]}}}
                ],
            }
        },
    ]
}


def test_s2_defaults_of_the_schema_are_filled_in() -> None:
    entity: dict[str, Any] = {"name": "x", "config": {"minute": 5, "rules": [{}, {"n": 2}]}, "run_on": "first"}
    fill_plugin(entity, SCHEMA)
    assert entity == {
        "name": "x",
        "enabled": True,
        "protocols": ["grpc", "http"],
        "config": {
            "minute": 5,
            "policy": "local",
            "redis": {"host": None, "port": 7000},
            "optional": None,
            "rules": [{"n": 1}, {"n": 2}],
            "replaced": "new",
        },
    }


def test_s2_a_given_shorthand_leaves_its_replacement_alone() -> None:
    entity: dict[str, Any] = {"name": "x", "config": {"old": "o", "policy": None}}
    fill_plugin(entity, SCHEMA)
    assert "replaced" not in entity["config"]
    assert entity["config"]["policy"] is None


def test_s2_a_schema_without_config_changes_nothing() -> None:
    entity: dict[str, Any] = {"name": "x", "run_on": "first"}
    fill_plugin(entity, {"fields": [{"protocols": {"default": ["http"]}}, "odd"]})
    assert entity == {"name": "x", "run_on": "first"}


def test_s2_schemas_are_part_of_the_settings() -> None:
    schemas = {"cors": {"fields": [{"config": {"type": "record", "fields": [{"max_age": {"default": 1}}]}}]}}
    (found,) = entries(plugin(), service(annotations=konghq(**WANTS)), ingress(), plugin_schemas=schemas)
    assert (found["config"], found["protocols"], found["enabled"]) == ({"max_age": 1}, ["http", "https"], True)
