from __future__ import annotations

from typing import Any

import pytest
from stand_ins import ScriptedKube, put, view_of

from konverge.lab.sidecar.reporting import Reporter, Subject, read_tags, tagged_objects
from konverge.lab.sidecar.settings import SidecarSettings

SETTINGS = SidecarSettings(publish_service="kong/proxy", pod_name="edge-1", pod_namespace="kong")
SERVICE = {
    "kind": "Service",
    "metadata": {"name": "proxy", "namespace": "kong"},
    "spec": {"type": "LoadBalancer"},
    "status": {"loadBalancer": {"ingress": [{"ip": "127.30.8.2", "ipMode": "VIP"}]}},
}


def ingress(name: str = "a", **changes: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "annotations": changes.pop("annotations", {})}
    return {"kind": "Ingress", "metadata": metadata, "spec": {"ingressClassName": "kong"}, **changes}


def consumer(**changes: Any) -> dict[str, Any]:
    metadata = {"name": "alice", "namespace": "n", "generation": 2}
    return {"kind": "KongConsumer", "metadata": metadata, "username": "alice", **changes}


DOCUMENT = {
    "consumers": [{"username": "alice", "tags": ["k8s-name:alice", "k8s-namespace:n", "k8s-kind:KongConsumer"]}]
}


async def statuses_of(*objects: dict[str, Any], document: Any = None, settings: Any = SETTINGS) -> list[Any]:
    kube = ScriptedKube()
    reporter = Reporter(kube, view_of(kube, *objects), settings)  # type: ignore[arg-type]
    await reporter.update_statuses(document or {})
    return kube.patches


async def test_an_ingress_gets_the_addresses_of_the_publish_service() -> None:
    wanted = {"loadBalancer": {"ingress": [{"ip": "127.30.8.2"}]}}
    assert await statuses_of(SERVICE, ingress()) == [("Ingress", "a", wanted)]


async def test_a_status_that_is_right_is_not_written_again() -> None:
    done = ingress(status={"loadBalancer": {"ingress": [{"ip": "127.30.8.2"}]}})
    assert await statuses_of(SERVICE, done) == []


@pytest.mark.parametrize(
    "objects",
    [
        (SERVICE, ingress(spec={"ingressClassName": "nginx"})),
        (SERVICE, ingress(annotations={"kubernetes.io/ingress.class": "nginx"})),
        (SERVICE, ingress(spec={})),
        (ingress(),),
        ({**SERVICE, "status": {}}, ingress()),
        ({**SERVICE, "spec": {"type": "ClusterIP", "clusterIP": "None"}}, ingress()),
    ],
)
async def test_other_classes_and_missing_addresses_write_nothing(objects: tuple[dict[str, Any], ...]) -> None:
    assert await statuses_of(*objects) == []


async def test_the_default_class_takes_an_ingress_without_one() -> None:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"}
    default = {"kind": "IngressClass", "metadata": {"name": "kong", "annotations": annotations}, "spec": {}}
    assert len(await statuses_of(SERVICE, default, ingress(spec={}))) == 1


async def test_a_cluster_service_publishes_its_own_address() -> None:
    service = {**SERVICE, "spec": {"type": "ClusterIP", "clusterIP": "127.30.16.9"}}
    patches = await statuses_of(service, ingress())
    assert patches[0][2] == {"loadBalancer": {"ingress": [{"ip": "127.30.16.9"}]}}


async def test_a_configured_object_is_programmed_for_its_generation() -> None:
    (kind, name, status), *rest = await statuses_of(consumer(), document=DOCUMENT)
    assert (kind, name, rest) == ("KongConsumer", "alice", [])
    condition = status["conditions"][0]
    assert (condition["type"], condition["status"], condition["observedGeneration"]) == ("Programmed", "True", 2)


async def test_an_older_generation_is_written_again_and_other_conditions_stay() -> None:
    other = {"type": "Other", "status": "False"}
    done = {"type": "Programmed", "status": "True", "observedGeneration": 2}
    assert await statuses_of(consumer(status={"conditions": [done]}), document=DOCUMENT) == []
    old = {**done, "observedGeneration": 1}
    patches = await statuses_of(consumer(status={"conditions": [other, old]}), document=DOCUMENT)
    assert patches[0][2]["conditions"][0] == other
    assert len(patches[0][2]["conditions"]) == 2


async def test_an_object_that_is_not_configured_is_not_marked() -> None:
    assert await statuses_of(consumer(), document={"consumers": []}) == []


async def test_a_write_that_fails_is_made_again_at_the_next_tick() -> None:
    kube = ScriptedKube()
    reporter = Reporter(kube, view_of(kube, SERVICE, ingress()), SETTINGS)  # type: ignore[arg-type]
    kube.failing = True
    await reporter.update_statuses({})
    await reporter.tell_pod("Reason", "text")
    kube.failing = False
    await reporter.update_statuses({})
    assert len(kube.patches) == 1


async def test_warnings_on_objects_are_told_once_until_they_change() -> None:
    kube = ScriptedKube()
    view = view_of(kube)
    put(view)
    reporter = Reporter(kube, view, SETTINGS)  # type: ignore[arg-type]
    subject = Subject("Ingress", "a", "n", "uid-1", "networking.k8s.io/v1")
    for notices in (
        [(subject, "R", "one")],
        [(subject, "R", "one")],
        [(subject, "R", "two")],
        [],
        [(subject, "R", "two")],
    ):
        await reporter.tell_objects(notices)
    assert [event["message"] for event in kube.events] == ["one", "two", "two"]
    assert kube.events[0]["type"] == "Warning"
    assert kube.events[0]["involvedObject"]["uid"] == "uid-1"
    assert len({event["metadata"]["name"] for event in kube.events}) == 3


async def test_the_pod_is_told_in_its_namespace() -> None:
    kube = ScriptedKube()
    await Reporter(kube, view_of(kube), SETTINGS).tell_pod("Reason", "x" * 2000)  # type: ignore[arg-type]
    event = kube.events[0]
    assert (event["involvedObject"]["name"], event["metadata"]["namespace"], event["type"]) == (
        "edge-1",
        "kong",
        "Normal",
    )
    assert len(event["message"]) == 1024


def test_tags_name_the_object() -> None:
    tags = ["k8s-name:a", "k8s-kind:KongPlugin", "k8s-namespace:n", "mine", "k8s-named-route-rule:x", "k8s-uid:1:2"]
    assert read_tags(tags)["uid"] == "1:2"
    document = {"plugins": [{"tags": tags}, {"tags": ["k8s-kind:KongPlugin"]}, {}]}
    assert tagged_objects(document) == {("KongPlugin", "n", "a")}
