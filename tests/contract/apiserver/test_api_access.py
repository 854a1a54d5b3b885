"""Who gets in, and what they may do."""

from __future__ import annotations

import base64
import json
from typing import Any

from api_wire import Api, pod, wait_for

RBAC = "rbac.authorization.k8s.io"
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def issue(api: Api, ns: str, **spec: Any) -> str:
    path = f"/api/v1/namespaces/{ns}/serviceaccounts/default/token"
    made = await api.ok("POST", path, {"spec": {"expirationSeconds": 600, **spec}})
    return str(made["status"]["token"])


async def grant(api: Api, ns: str, rules: list[dict[str, Any]]) -> None:
    role = {"metadata": {"name": "r"}, "rules": rules}
    await api.ok("POST", f"/apis/{RBAC}/v1/namespaces/{ns}/roles", role)
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": ns}],
    }
    await api.ok("POST", f"/apis/{RBAC}/v1/namespaces/{ns}/rolebindings", binding)


async def test_nobody_gets_in_without_credentials(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods", token="")
    assert answer.status in (401, 403)
    assert (await api.send("GET", "/healthz", token="")).status == 200


async def test_wrong_token(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods", token="nonsense")
    assert (answer.status, answer.reason, answer.message) == (401, "Unauthorized", "Unauthorized")


async def test_token_says_who_it_is(api: Api, ns: str) -> None:
    token = await issue(api, ns)
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["sub"] == f"system:serviceaccount:{ns}:default"
    assert claims["exp"] - claims["iat"] == 600
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = await api.ok("POST", path, {}, token=token)
    info = review["status"]["userInfo"]
    assert info["username"] == f"system:serviceaccount:{ns}:default"
    assert {"system:serviceaccounts", f"system:serviceaccounts:{ns}", "system:authenticated"} <= set(info["groups"])


async def test_refusal_in_a_namespace(api: Api, ns: str) -> None:
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/secrets", token=await issue(api, ns))
    assert (answer.status, answer.reason) == (403, "Forbidden")
    assert answer.message == (
        f'secrets is forbidden: User "system:serviceaccount:{ns}:default" cannot list resource "secrets" '
        f'in API group "" in the namespace "{ns}"'
    )


async def test_refusal_at_the_cluster_scope(api: Api, ns: str) -> None:
    answer = await api.send("GET", "/api/v1/nodes/n", token=await issue(api, ns))
    assert answer.message == (
        f'nodes "n" is forbidden: User "system:serviceaccount:{ns}:default" cannot get resource "nodes" '
        'in API group "" at the cluster scope'
    )


async def test_refusal_of_a_path(api: Api, ns: str) -> None:
    answer = await api.send("GET", "/metrics", token=await issue(api, ns))
    assert (answer.status, answer.message) == (
        403,
        f'forbidden: User "system:serviceaccount:{ns}:default" cannot get path "/metrics"',
    )


async def test_roles_are_in_force_at_once(api: Api, ns: str) -> None:
    token = await issue(api, ns)
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["mine"]}]
    await grant(api, ns, rules)
    for name in ("mine", "other"):
        await api.ok("POST", f"/api/v1/namespaces/{ns}/secrets", {"metadata": {"name": name}})

    async def allowed() -> bool:
        return (await api.send("GET", f"/api/v1/namespaces/{ns}/secrets/mine", token=token)).status == 200

    await wait_for(allowed)
    assert (await api.send("GET", f"/api/v1/namespaces/{ns}/secrets/other", token=token)).status == 403
    assert (await api.send("DELETE", f"/api/v1/namespaces/{ns}/secrets/mine", token=token)).status == 403


async def test_subresources_need_their_own_rule(api: Api, ns: str) -> None:
    token = await issue(api, ns)
    await grant(api, ns, [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}])
    await api.ok("POST", f"/api/v1/namespaces/{ns}/pods", pod("p"))

    async def allowed() -> bool:
        return (await api.send("GET", f"/api/v1/namespaces/{ns}/pods/p", token=token)).status == 200

    await wait_for(allowed)
    answer = await api.send("GET", f"/api/v1/namespaces/{ns}/pods/p/log", token=token)
    assert answer.status == 403
    assert 'cannot get resource "pods/log"' in answer.message


async def test_access_reviews(api: Api, ns: str) -> None:
    token = await issue(api, ns)
    attributes = {"verb": "create", "resource": "pods", "namespace": ns}
    body = {"spec": {"resourceAttributes": attributes}}
    assert (await api.ok("POST", REVIEW, body, token=token))["status"]["allowed"] is False
    assert (await api.ok("POST", REVIEW, body))["status"]["allowed"] is True
    subject = {"spec": {"resourceAttributes": attributes, "user": "x", "groups": ["system:masters"]}}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    assert (await api.ok("POST", path, subject))["status"]["allowed"] is True


async def test_token_review(api: Api, ns: str) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    good = await api.ok("POST", path, {"spec": {"token": await issue(api, ns)}})
    assert good["status"]["authenticated"] is True
    assert good["status"]["user"]["username"] == f"system:serviceaccount:{ns}:default"
    bad = await api.ok("POST", path, {"spec": {"token": "nonsense"}})
    assert not bad["status"].get("authenticated")


async def test_token_for_another_audience(api: Api, ns: str) -> None:
    token = await issue(api, ns, audiences=["somebody.example.org"])
    assert (await api.send("GET", f"/api/v1/namespaces/{ns}/pods", token=token)).status == 401


async def test_token_dies_with_its_pod(api: Api, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/pods"
    made = await api.ok("POST", path, pod("p"))
    bound = {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": made["metadata"]["uid"]}
    token = await issue(api, ns, boundObjectRef=bound)
    whoami = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    assert (await api.send("POST", whoami, {}, token=token)).status == 201
    await api.ok("DELETE", f"{path}/p")

    async def refused() -> bool:
        return (await api.send("POST", whoami, {}, token=token)).status == 401

    await wait_for(refused)


async def test_impersonation(api: Api, ns: str) -> None:
    headers = {"Impersonate-User": "joe", "Impersonate-Group": "crew"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    info = (await api.ok("POST", path, {}, headers=headers))["status"]["userInfo"]
    assert (info["username"], info["groups"]) == ("joe", ["crew", "system:authenticated"])
    assert (await api.send("GET", f"/api/v1/namespaces/{ns}/pods", headers=headers)).status == 403
