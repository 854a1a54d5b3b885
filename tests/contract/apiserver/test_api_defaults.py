"""What the server fills in."""

from __future__ import annotations

from api_wire import MERGE, Api, deployment, pod


async def test_service_defaults(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
    spec = (await api.ok("POST", f"/api/v1/namespaces/{ns}/services", body))["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    found = (spec["type"], spec["sessionAffinity"], spec["ipFamilies"], spec["ipFamilyPolicy"])
    assert found == ("ClusterIP", "None", ["IPv4"], "SingleStack")
    assert spec["internalTrafficPolicy"] == "Cluster"


async def test_cluster_addresses_are_distinct_and_stay(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/services"
    made = [
        await api.ok("POST", path, {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
        for name in ("a", "b")
    ]
    assert made[0]["spec"]["clusterIP"] != made[1]["spec"]["clusterIP"]
    changed = await api.ok("PATCH", f"{path}/a", {"spec": {"ports": [{"port": 81}]}}, content_type=MERGE)
    assert changed["spec"]["clusterIP"] == made[0]["spec"]["clusterIP"]


async def test_headless_service(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "h"}, "spec": {"clusterIP": "None", "ports": [{"port": 80}]}}
    spec = (await api.ok("POST", f"/api/v1/namespaces/{ns}/services", body))["spec"]
    assert (spec["clusterIP"], spec["clusterIPs"]) == ("None", ["None"])


async def test_load_balancer_gets_node_ports(api: Api, ns: str) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 443}]
    body = {"metadata": {"name": "l"}, "spec": {"type": "LoadBalancer", "ports": ports}}
    spec = (await api.ok("POST", f"/api/v1/namespaces/{ns}/services", body))["spec"]
    numbers = [port["nodePort"] for port in spec["ports"]]
    assert len(set(numbers)) == 2
    assert all(30000 <= number <= 32767 for number in numbers)
    assert (spec["externalTrafficPolicy"], spec["allocateLoadBalancerNodePorts"]) == ("Cluster", True)


async def test_deployment_defaults(api: Api, ns: str) -> None:
    body = deployment("d")
    del body["spec"]["replicas"]
    body["spec"]["paused"] = True
    spec = (await api.ok("POST", f"/apis/apps/v1/namespaces/{ns}/deployments", body))["spec"]
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"},
    }
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    template = spec["template"]["spec"]
    assert (template["restartPolicy"], template["dnsPolicy"], template["schedulerName"]) == (
        "Always",
        "ClusterFirst",
        "default-scheduler",
    )
    container = template["containers"][0]
    assert (container["imagePullPolicy"], container["terminationMessagePolicy"]) == ("IfNotPresent", "File")


async def test_pod_defaults(api: Api, ns: str) -> None:
    body = pod("p")
    body["spec"]["containers"][0] |= {
        "image": "example.org/x",
        "readinessProbe": {"httpGet": {"port": 80}},
        "ports": [{"containerPort": 80}],
        "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
    }
    made = await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", body)
    container = made["spec"]["containers"][0]
    assert container["imagePullPolicy"] == "Always"
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "1", "memory": "1Gi"},
    }
    assert (made["status"]["phase"], made["status"]["qosClass"]) == ("Pending", "Guaranteed")
    assert made["spec"]["terminationGracePeriodSeconds"] == 30
    tolerated = {toleration["key"]: toleration["tolerationSeconds"] for toleration in made["spec"]["tolerations"]}
    assert tolerated == {"node.kubernetes.io/not-ready": 300, "node.kubernetes.io/unreachable": 300}


async def test_pod_gets_the_token_of_its_account(api: Api, ns: str) -> None:
    spec = (await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p")))["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    volume = spec["volumes"][0]
    assert volume["name"].startswith("kube-api-access-")
    sources = volume["projected"]["sources"]
    assert sources[0]["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    mount = spec["containers"][0]["volumeMounts"][0]
    assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (
        volume["name"],
        "/var/run/secrets/kubernetes.io/serviceaccount",
        True,
    )


async def test_pod_without_its_account_is_forbidden(api: Api, ns: str) -> None:
    answer = await api.send("POST", f"/api/v1/namespaces/{ns}/pods", pod("p", serviceAccountName="nobody"))
    assert (answer.status, answer.reason) == (403, "Forbidden")
    assert answer.message == (
        f'pods "p" is forbidden: error looking up service account {ns}/nobody: serviceaccount "nobody" not found'
    )


async def test_secret_string_data(api: Api, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "data": {"a": "Yg=="}, "stringData": {"c": "d"}}
    made = await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", body)
    assert (made["type"], made["data"]) == ("Opaque", {"a": "Yg==", "c": "ZA=="})
    assert "stringData" not in made


async def test_namespace_has_label_account_and_authority(api: Api, ns: str) -> None:
    space = await api.ok("GET", f"/api/v1/namespaces/{ns}")
    assert space["metadata"]["labels"]["kubernetes.io/metadata.name"] == ns
    assert (space["status"]["phase"], space["spec"]["finalizers"]) == ("Active", ["kubernetes"])
    found = await api.ok("GET", f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt")
    assert "BEGIN CERTIFICATE" in found["data"]["ca.crt"]


async def test_cluster_starts_with_its_basics(api: Api) -> None:
    names = {item["metadata"]["name"] for item in (await api.ok("GET", "/api/v1/namespaces"))["items"]}
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names
    service = await api.ok("GET", "/api/v1/namespaces/default/services/kubernetes")
    assert service["spec"]["ports"][0]["port"] == 443


async def test_autoscaler_defaults(api: Api, ns: str) -> None:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    body = {"metadata": {"name": "h"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3}}
    made = await api.ok("POST", f"/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers", body)
    assert made["spec"]["minReplicas"] == 1
    assert made["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}
