"""Deployments and ReplicaSets against a cluster in memory: what holds at every step of a rollout."""

import random

import pytest
from conftest import Settle
from fake_cluster import FakeCluster, deployment, replica_set, template

from konverge.errors import Invalid
from konverge.kube.resources import DEPLOYMENTS, PODS, REPLICA_SETS, Object
from konverge.lab.controllers.conditions import find_condition, pod_is_active, pod_is_ready
from konverge.lab.controllers.hashing import LABEL
from konverge.lab.controllers.revisions import REVISION
from konverge.lab.controllers.rolling import max_unavailable, replicas_of, resolve_fenceposts


def active(cluster: FakeCluster) -> list[Object]:
    return [pod for pod in cluster.all(PODS) if pod_is_active(pod)]


def images(cluster: FakeCluster) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in active(cluster)}


async def bring_up(cluster: FakeCluster, settle: Settle) -> None:
    """Play the kubelet until nothing is left to do."""
    for _ in range(200):
        await settle()
        gone = [pod for pod in cluster.all(PODS) if pod["metadata"].get("deletionTimestamp")]
        waiting = [pod for pod in active(cluster) if not pod_is_ready(pod)]
        if not gone and not waiting:
            return
        for pod in gone:
            cluster.remove(PODS, pod["metadata"]["name"])
        for pod in waiting:
            cluster.make_ready(pod)
    raise AssertionError("the rollout does not end")


async def test_deployment_makes_one_replica_set_and_its_pods(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=3))
    await bring_up(cluster, settle)
    found = cluster.one(DEPLOYMENTS, "web")
    (owned,) = cluster.all(REPLICA_SETS)
    assert owned["metadata"]["name"] == f"web-{owned['metadata']['labels'][LABEL]}"
    assert all(pod["metadata"]["labels"][LABEL] == owned["metadata"]["labels"][LABEL] for pod in active(cluster))
    assert found["status"]["availableReplicas"] == 3
    assert found["metadata"]["annotations"][REVISION] == "1"
    assert find_condition(found, "Available")["status"] == "True"
    assert find_condition(found, "Progressing")["reason"] == "NewReplicaSetAvailable"


@pytest.mark.parametrize("seed", range(12))
async def test_rollout_never_breaks_its_bounds(cluster: FakeCluster, settle: Settle, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    surge, unavailable = dice.choice([(1, 0), ("25%", "25%"), (0, 1), (2, 1), ("100%", 0), (0, "50%")])
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    wanted = dice.randrange(1, 9)
    await cluster.create(DEPLOYMENTS, deployment(replicas=wanted, strategy=strategy))
    await bring_up(cluster, settle)
    cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", "two")})
    most = wanted + resolve_fenceposts(cluster.one(DEPLOYMENTS, "web"))[0]
    least = wanted - max_unavailable(cluster.one(DEPLOYMENTS, "web"))
    for _ in range(2000):
        for _ in range(dice.randrange(1, 5)):
            await settle()
        assert len(active(cluster)) <= most
        assert sum(map(pod_is_ready, active(cluster))) >= least
        pods = [pod for pod in cluster.all(PODS) if not (pod_is_active(pod) and pod_is_ready(pod))]
        if not pods and images(cluster) == {"two"} and len(active(cluster)) == wanted:
            break
        if pods:
            pod = dice.choice(pods)
            if pod_is_active(pod):
                cluster.make_ready(pod)
            else:
                cluster.remove(PODS, pod["metadata"]["name"])
    else:
        raise AssertionError("the rollout does not end")
    await settle()
    assert cluster.one(DEPLOYMENTS, "web")["status"]["updatedReplicas"] == wanted
    assert cluster.one(DEPLOYMENTS, "web")["metadata"]["annotations"][REVISION] == "2"


async def test_broken_template_stops_and_rolling_back_reuses_the_old_set(
    cluster: FakeCluster, settle: Settle
) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=4))
    await bring_up(cluster, settle)
    before = {item["metadata"]["name"] for item in cluster.all(REPLICA_SETS)}
    cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", "broken")})
    await settle()
    ready = [pod for pod in active(cluster) if pod_is_ready(pod)]
    assert len(ready) == 3
    assert len(active(cluster)) == 5
    cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", "one")})
    await bring_up(cluster, settle)
    assert images(cluster) == {"one"}
    restored = next(item for item in cluster.all(REPLICA_SETS) if replicas_of(item))
    assert restored["metadata"]["name"] in before
    assert restored["metadata"]["annotations"][REVISION] == "3"
    assert restored["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"


async def test_recreate_waits_for_the_last_old_pod(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2, strategy={"type": "Recreate"}))
    await bring_up(cluster, settle)
    cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", "two")})
    await settle()
    dying = [pod for pod in cluster.all(PODS) if pod["metadata"].get("deletionTimestamp")]
    assert len(dying) == 2
    assert not active(cluster)
    cluster.remove(PODS, dying[0]["metadata"]["name"])
    await settle()
    assert not active(cluster)
    cluster.remove(PODS, dying[1]["metadata"]["name"])
    await bring_up(cluster, settle)
    assert images(cluster) == {"two"}
    assert len(active(cluster)) == 2


async def test_paused_deployment_scales_but_does_not_roll(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    await bring_up(cluster, settle)
    cluster.change(DEPLOYMENTS, "web", spec={"paused": True, "template": template("web", "two"), "replicas": 4})
    await bring_up(cluster, settle)
    assert images(cluster) == {"one"}
    assert len(active(cluster)) == 4
    assert find_condition(cluster.one(DEPLOYMENTS, "web"), "Progressing")["reason"] == "DeploymentPaused"
    cluster.change(DEPLOYMENTS, "web", spec={"paused": False})
    await bring_up(cluster, settle)
    assert images(cluster) == {"two"}


async def test_scaling_in_the_middle_of_a_rollout_keeps_the_proportions(cluster: FakeCluster, settle: Settle) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
    await cluster.create(DEPLOYMENTS, deployment(replicas=10, strategy=strategy))
    await bring_up(cluster, settle)
    cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", "two")})
    await settle()
    sizes = {
        item["spec"]["template"]["spec"]["containers"][0]["image"]: replicas_of(item)
        for item in cluster.all(REPLICA_SETS)
    }
    assert sizes == {"one": 8, "two": 5}
    cluster.change(DEPLOYMENTS, "web", spec={"replicas": 15})
    await settle()
    sizes = {
        item["spec"]["template"]["spec"]["containers"][0]["image"]: replicas_of(item)
        for item in cluster.all(REPLICA_SETS)
    }
    # The example of Kubernetes' own documentation on proportional scaling: 8 + 5 become 11 + 7.
    assert sizes == {"one": 11, "two": 7}


async def test_relabelled_pod_is_released_and_replaced(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    await bring_up(cluster, settle)
    pod = active(cluster)[0]
    cluster.change(PODS, pod["metadata"]["name"], metadata={"labels": {"app": "elsewhere"}})
    await bring_up(cluster, settle)
    released = cluster.one(PODS, pod["metadata"]["name"])
    assert released["metadata"]["ownerReferences"] == []
    assert len(active(cluster)) == 3
    assert cluster.one(DEPLOYMENTS, "web")["status"]["replicas"] == 2


async def test_replica_set_adopts_matching_orphans(cluster: FakeCluster, settle: Settle) -> None:
    for name in ("a", "b", "c"):
        pod = {"apiVersion": "v1", "kind": "Pod", **template("set", "one")}
        pod["metadata"] = {**pod["metadata"], "name": name, "namespace": "default"}
        await cluster.create(PODS, pod)
        cluster.make_ready(cluster.one(PODS, name))
    await cluster.create(REPLICA_SETS, replica_set(replicas=2))
    await settle()
    assert len(active(cluster)) == 2
    assert all(pod["metadata"]["ownerReferences"][0]["name"] == "set" for pod in active(cluster))


async def test_refused_pods_are_reported_and_cost_one_call_per_attempt(cluster: FakeCluster, settle: Settle) -> None:
    cluster.refuse = Invalid("quota exceeded")
    await cluster.create(REPLICA_SETS, replica_set(replicas=50))
    await settle()
    failure = find_condition(cluster.one(REPLICA_SETS, "set"), "ReplicaFailure")
    assert failure["reason"] == "FailedCreate"
    assert "quota exceeded" in failure["message"]
    cluster.refuse = None
    cluster.change(REPLICA_SETS, "set", spec={"replicas": 3})
    await settle()
    assert len(active(cluster)) == 3
    assert find_condition(cluster.one(REPLICA_SETS, "set"), "ReplicaFailure") is None


async def test_history_is_cut_to_its_limit(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=1, revisionHistoryLimit=2))
    for image in ("two", "three", "four", "five"):
        await bring_up(cluster, settle)
        cluster.change(DEPLOYMENTS, "web", spec={"template": template("web", image)})
    await bring_up(cluster, settle)
    kept = sorted(int(item["metadata"]["annotations"][REVISION]) for item in cluster.all(REPLICA_SETS))
    assert kept == [3, 4, 5]


async def test_settled_deployment_is_written_no_more(cluster: FakeCluster, settle: Settle) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    await bring_up(cluster, settle)
    cluster.writes.clear()
    cluster.change(DEPLOYMENTS, "web", metadata={"labels": {"team": "x"}})
    await settle()
    assert [write for write in cluster.writes if write[1] != "events"] == []
