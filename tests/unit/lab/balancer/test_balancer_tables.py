"""What listens where: tables, choices, delays, annotations."""

import asyncio
import json
from typing import Any

import pytest

from konverge.kube.resources import Object
from konverge.lab.balancer.choosing import Chooser
from konverge.lab.balancer.faults import Fault, Faults
from konverge.lab.balancer.publishing import moved_ports
from konverge.lab.balancer.settings import BalancerSettings
from konverge.lab.balancer.syncing import Syncing
from konverge.lab.balancer.tables import Rule, build_table

NODE = "127.20.0.1"


def service(name: str = "web", **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    status = spec.pop("status", {})
    return {
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"clusterIP": "127.20.16.2", "type": "ClusterIP", "ports": ports, **spec},
        "status": status,
    }


def slice_of(*endpoints: tuple[str, bool | None, bool, bool], name: str = "web", port: str = "http") -> Object:
    return {
        "metadata": {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [ip], "conditions": {"ready": ready, "serving": serving, "terminating": leaving}}
            for ip, ready, serving, leaving in endpoints
        ],
    }


def backends(*slices: Object) -> list[str]:
    table = build_table([service()], slices, "cluster", NODE)
    return [ip for ip, _ in table["127.20.16.2", 80].backends]


def test_ready_endpoints_take_everything() -> None:
    found = backends(slice_of(("a", True, True, False), ("b", False, False, False), ("c", False, True, True)))
    assert found == ["a"]


def test_serving_endpoints_on_their_way_out_are_used_when_none_is_ready() -> None:
    found = backends(slice_of(("b", False, False, False), ("c", False, True, True), ("d", False, False, True)))
    assert found == ["c"]


def test_unknown_readiness_counts_as_ready_and_an_address_counts_once() -> None:
    assert backends(slice_of(("a", None, True, False)), slice_of(("a", True, True, False))) == ["a"]


def test_port_is_matched_by_name() -> None:
    assert backends(slice_of(("a", True, True, False), port="other")) == []


def test_cluster_tier_has_cluster_ips_and_node_ports_and_cloud_tier_load_balancers() -> None:
    ports = [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]
    status = {"loadBalancer": {"ingress": [{"ip": "127.20.8.2"}]}}
    balanced = service(type="LoadBalancer", ports=ports, status=status)
    assert set(build_table([balanced], [], "cluster", NODE)) == {("127.20.16.2", 80), (NODE, 30080)}
    assert set(build_table([balanced], [], "cloud", NODE)) == {("127.20.8.2", 80)}


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"clusterIP": ""}, {"type": "ExternalName"}])
def test_services_without_an_address_listen_nowhere(spec: dict[str, str]) -> None:
    assert build_table([service(**spec)], [], "cluster", NODE) == {}


def test_udp_ports_are_left_out() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    assert build_table([service(ports=ports)], [], "cluster", NODE) == {}


def test_affinity_keeps_a_client_until_its_endpoint_is_gone_or_its_time_is_over() -> None:
    one, two = ("10.0.0.1", 80), ("10.0.0.2", 80)
    chooser = Chooser()
    rule = Rule("n/web", "http", (one, two), affinity=60.0)
    first = chooser.choose(rule, "client", 0.0)
    assert all(chooser.choose(rule, "client", float(moment)) == first for moment in range(1, 500, 50))
    other = two if first == one else one
    left = Rule("n/web", "http", (other,), affinity=60.0)
    assert chooser.choose(left, "client", 500.0) == other
    late = {chooser.choose(rule, "client", 10_000.0 * turn) for turn in range(1, 60)}
    assert late == {one, two}


def test_round_robin_gives_each_endpoint_the_same() -> None:
    rule = Rule("n/web", "http", tuple((f"10.0.0.{number}", 80) for number in range(3)))
    chooser = Chooser(in_turn=True)
    found = [chooser.choose(rule, "client", 0.0) for _ in range(30)]
    assert {found.count(address) for address in rule.backends} == {10}


def test_random_choice_reaches_every_endpoint() -> None:
    rule = Rule("n/web", "http", tuple((f"10.0.0.{number}", 80) for number in range(5)))
    assert {Chooser().choose(rule, "client", 0.0) for _ in range(400)} == set(rule.backends)
    assert Chooser().choose(Rule("n/web", "http"), "client", 0.0) is None


def test_load_balancers_notice_later_than_kube_proxy() -> None:
    settings = BalancerSettings()
    assert settings.cluster_delay() == (0.5, 1.0)
    assert settings.cloud_delay() == (2.5, 4.0)
    assert BalancerSettings(sync_delay=0.0).cloud_delay() == (0.0, 0.0)


async def test_many_changes_are_one_sync_and_the_next_change_is_another() -> None:
    done: asyncio.Queue[bool] = asyncio.Queue()
    syncing = Syncing(lambda: done.put_nowait(True), (0.01, 0.02))
    for _ in range(10):
        syncing.notice()
    await done.get()
    assert not syncing.pending
    syncing.notice()
    await done.get()
    assert done.empty()
    syncing.notice()
    syncing.stop()
    assert not syncing.pending


def test_endpoint_fault_goes_before_the_fault_of_its_service() -> None:
    faults = Faults(targets={"n/web": Fault(delay=1), "10.0.0.1": Fault(drop=True), "10.0.0.2:81": Fault(delay=2)})
    rule = Rule("n/web", "http")
    assert faults.of(rule, ("10.0.0.1", 80)) == Fault(drop=True)
    assert faults.of(rule, ("10.0.0.2", 80)) == Fault(delay=1)
    assert faults.of(rule, ("10.0.0.2", 81)) == Fault(delay=2)
    assert faults.of(Rule("n/other", "http"), ("10.0.0.2", 80)) is None


def test_annotation_says_where_a_privileged_port_went() -> None:
    ports = [{"port": 80}, {"port": 9000}]
    status = {"loadBalancer": {"ingress": [{"ip": "127.20.8.2"}]}}
    moved = {("127.20.8.2", 80): ("127.20.8.2", 8080)}
    text = moved_ports(service(ports=ports, status=status), moved)
    assert json.loads(text or "") == {"127.20.8.2:80": "127.20.8.2:8080"}
    assert moved_ports(service(), moved) is None
