"""Builds the Kubernetes objects of a fleet; pure.

The chart renders the same shapes; a test compares the two where they must agree.
"""

from __future__ import annotations

from typing import Any

from konverge.model.fleet import Fleet
from konverge.model.proxy import ADMIN_PORT, CONFIGURED_GATE, PROXY_PORT, STATUS_PORT

Object = dict[str, Any]

IDENTITY_PATH = "/etc/konverge/identity"
"""Where a proxy finds its server certificate, key and client CA bundle."""
MAX_BODY = "256m"
"""Kong spills bodies over the buffer to a file that its readers ignore: both limits are raised together
(kong/templates/kong_defaults.lua: 10m each)."""


def build_fleet_objects(fleet: Fleet) -> list[Object]:
    """Return what the proxies need: the headless admin Service, a disruption budget and the Deployment."""
    return [build_admin_service(fleet), build_disruption_budget(fleet), build_proxy_deployment(fleet)]


def _metadata(fleet: Fleet, name: str, component: str) -> Object:
    labels = {
        "app.kubernetes.io/name": "konverge-controller" if component == "controller" else "konverge-gateway",
        "app.kubernetes.io/instance": fleet.name,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "konverge",
        "konverge.dev/fleet": fleet.name,
    }
    return {"name": name, "namespace": fleet.namespace, "labels": labels}


def build_admin_service(fleet: Fleet) -> Object:
    """Return the headless Service through which proxies are found before they are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(fleet, fleet.admin_service, "admin"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": dict(fleet.labels),
            "ports": [{"name": "kong-admin-tls", "port": ADMIN_PORT, "targetPort": ADMIN_PORT, "protocol": "TCP"}],
        },
    }


def build_disruption_budget(fleet: Fleet) -> Object:
    """Return a budget that lets one proxy go at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(fleet, fleet.deployment, "proxy"),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(fleet.labels)}},
    }


def build_proxy_deployment(fleet: Fleet) -> Object:
    """Return the Deployment of the proxies, with the readiness gate that onboarding opens."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(fleet, fleet.deployment, "proxy"),
        "spec": {
            "replicas": fleet.spec.replicas,
            "selector": {"matchLabels": dict(fleet.labels)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": {**fleet.labels, "konverge.dev/fleet": fleet.name}},
                "spec": _proxy_pod(fleet),
            },
        },
    }


def _proxy_pod(fleet: Fleet) -> Object:
    return {
        "terminationGracePeriodSeconds": 60,
        "automountServiceAccountToken": False,
        "readinessGates": [{"conditionType": CONFIGURED_GATE}],
        "affinity": anti_affinity(fleet.labels),
        **({"initContainers": migrating} if (migrating := _migrating_containers(fleet)) else {}),
        "containers": [_proxy_container(fleet)],
        "volumes": [
            {"name": "prefix", "emptyDir": {"sizeLimit": "2Gi"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "identity", "secret": {"secretName": fleet.proxy_secret, "defaultMode": 0o440}},
        ],
    }


def anti_affinity(labels: dict[str, str]) -> Object:
    """Return a preference for one pod per node."""
    term = {"labelSelector": {"matchLabels": dict(labels)}, "topologyKey": "kubernetes.io/hostname"}
    return {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]
        }
    }


def _database_environment(fleet: Fleet) -> dict[str, str]:
    """Return where Kong keeps its entities; the password is no plain value, see :func:`_database_password`."""
    if fleet.spec.mode == "dbless":
        return {"KONG_DATABASE": "off"}
    database = fleet.spec.database
    return {
        "KONG_DATABASE": "postgres",
        "KONG_PG_HOST": database.host,
        "KONG_PG_PORT": str(database.port),
        "KONG_PG_DATABASE": database.name,
        "KONG_PG_USER": database.user,
        "KONG_PG_SSL": "on" if database.tls else "off",
        "KONG_PG_SSL_VERIFY": "on" if database.tls else "off",
    }


def _database_password(fleet: Fleet) -> list[Object]:
    secret = fleet.spec.database.password_secret
    if fleet.spec.mode == "dbless" or not secret:
        return []
    return [{"name": "KONG_PG_PASSWORD", "valueFrom": {"secretKeyRef": {"name": secret, "key": "password"}}}]


def _migrating_containers(fleet: Fleet) -> list[Object]:
    """Return what makes the tables of a new database; on one that has them it ends at once."""
    if fleet.spec.mode == "dbless":
        return []
    database = [{"name": name, "value": value} for name, value in _database_environment(fleet).items()]
    container = {
        "name": "migrations",
        "image": fleet.spec.image,
        "command": ["kong", "migrations", "bootstrap"],
        "env": [*database, {"name": "KONG_PREFIX", "value": "/kong_prefix/"}, *_database_password(fleet)],
        "volumeMounts": [{"name": "prefix", "mountPath": "/kong_prefix/"}],
    }
    return [container]


def proxy_environment(fleet: Fleet) -> dict[str, str]:
    """Return Kong's settings: where its entities are, Admin API behind mutual TLS, no session resumption.

    Resumption skips the check of the client certificate, so a retired identity would keep its access for up
    to a day; tickets and cache must both be off.
    """
    return {
        **_database_environment(fleet),
        "KONG_PREFIX": "/kong_prefix/",
        "KONG_ROUTER_FLAVOR": fleet.spec.router_flavor,
        "KONG_NGINX_WORKER_PROCESSES": "2",
        "KONG_ADMIN_LISTEN": f"0.0.0.0:{ADMIN_PORT} http2 ssl",
        "KONG_STATUS_LISTEN": f"0.0.0.0:{STATUS_PORT}",
        "KONG_PROXY_LISTEN": f"0.0.0.0:{PROXY_PORT}, 0.0.0.0:8443 http2 ssl",
        "KONG_ADMIN_SSL_CERT": f"{IDENTITY_PATH}/tls.crt",
        "KONG_ADMIN_SSL_CERT_KEY": f"{IDENTITY_PATH}/tls.key",
        "KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT": "on",
        "KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE": f"{IDENTITY_PATH}/client-ca.pem",
        "KONG_NGINX_ADMIN_SSL_VERIFY_DEPTH": "2",
        "KONG_NGINX_ADMIN_SSL_PROTOCOLS": "TLSv1.3",
        "KONG_NGINX_ADMIN_SSL_SESSION_TICKETS": "off",
        "KONG_NGINX_ADMIN_SSL_SESSION_CACHE": "off",
        "KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE": MAX_BODY,
        "KONG_NGINX_ADMIN_CLIENT_BODY_BUFFER_SIZE": MAX_BODY,
        "KONG_PROXY_ACCESS_LOG": "/dev/stdout",
        "KONG_PROXY_ERROR_LOG": "/dev/stderr",
        "KONG_ADMIN_ACCESS_LOG": "/dev/stdout",
        "KONG_ADMIN_ERROR_LOG": "/dev/stderr",
    }


def _proxy_container(fleet: Fleet) -> Object:
    status = {"port": STATUS_PORT, "scheme": "HTTP"}
    return {
        "name": "proxy",
        "image": fleet.spec.image,
        "env": [
            *({"name": name, "value": value} for name, value in proxy_environment(fleet).items()),
            *_database_password(fleet),
        ],
        "ports": [
            {"name": "proxy", "containerPort": PROXY_PORT, "protocol": "TCP"},
            {"name": "proxy-tls", "containerPort": 8443, "protocol": "TCP"},
            {"name": "kong-admin-tls", "containerPort": ADMIN_PORT, "protocol": "TCP"},
            {"name": "status", "containerPort": STATUS_PORT, "protocol": "TCP"},
        ],
        # Often, since a new proxy waits for it. A reload answers 503 for up to two seconds: six in a row take it out.
        "readinessProbe": {
            "httpGet": {"path": "/status/ready", **status},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 6,
        },
        "livenessProbe": {
            "httpGet": {"path": "/status", **status},
            "initialDelaySeconds": 5,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["kong", "quit", "--wait=15"]}}},
        "volumeMounts": [
            {"name": "prefix", "mountPath": "/kong_prefix/"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount of the container
            {"name": "identity", "mountPath": IDENTITY_PATH, "readOnly": True},
        ],
    }


def build_controller_objects(fleet: Fleet, image: str) -> list[Object]:
    """Return the controller of the fleet: account, rights and Deployment."""
    account = {"kind": "ServiceAccount", "name": fleet.controller, "namespace": fleet.namespace}
    names = f"konverge-{fleet.namespace}-{fleet.name}"
    issued = fleet.spec.identity.issuer.kind == "cert-manager"
    rules = [*FLEET_RULES, *(CERT_MANAGER_RULES if issued else ())]
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(fleet, fleet.controller, "controller"),
        },
        _role("ClusterRole", {"name": names}, SOURCE_RULES),
        _binding("ClusterRole", {"name": names}, account),
        _role("Role", _metadata(fleet, fleet.controller, "controller"), rules),
        _binding("Role", _metadata(fleet, fleet.controller, "controller"), account),
        _controller_deployment(fleet, image),
    ]


_LOOK = ["list", "watch"]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Object:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


SOURCE_RULES: list[Object] = [
    _rule("", ["configmaps", "secrets", "services"], _LOOK),
    _rule("discovery.k8s.io", ["endpointslices"], _LOOK),
    _rule("networking.k8s.io", ["ingressclasses", "ingresses"], _LOOK),
    _rule(
        "configuration.konghq.com",
        [
            "ingressclassparameterses",
            "kongclusterplugins",
            "kongconsumergroups",
            "kongconsumers",
            "kongcustomentities",
            "kongingresses",
            "konglicenses",
            "kongplugins",
            "kongupstreampolicies",
            "kongvaults",
            "tcpingresses",
            "udpingresses",
        ],
        _LOOK,
    ),
    _rule("incubator.ingress-controller.konghq.com", ["kongservicefacades"], _LOOK),
    _rule(
        "gateway.networking.k8s.io",
        [
            "backendtlspolicies",
            "gatewayclasses",
            "gateways",
            "grpcroutes",
            "httproutes",
            "referencegrants",
            "tcproutes",
            "tlsroutes",
            "udproutes",
        ],
        _LOOK,
    ),
    _rule("", ["events"], ["create", "patch"]),
]
"""What the controller does in every namespace: it reads what is rendered, and tells of problems by events."""

_KONVERGE = "konverge.dev"
FLEET_RULES: list[Object] = [
    _rule(_KONVERGE, ["configrevisions"], ["get", "list", "create", "delete"]),
    # Applied on the server: that needs create and patch.
    _rule(_KONVERGE, ["proxyfleets"], ["get", "list", "watch", "create", "patch"]),
    _rule(_KONVERGE, ["proxyinstances"], ["get", "list", "create"]),
    _rule(_KONVERGE, ["sealedidentities"], ["get", "list", "watch", "create"]),
    _rule(_KONVERGE, ["configrevisions/status", "proxyfleets/status"], ["update"]),
    _rule(_KONVERGE, ["proxyinstances/status"], ["patch"]),
    _rule("", ["secrets"], ["get", "list", "watch", "create", "patch", "delete"]),
    # Gates, and `kong reload` on a proxy that missed a rotation. A WebSocket is opened by a GET: API servers ask for
    # both verbs from 1.35 on.
    _rule("", ["pods"], ["get", "list"]),
    _rule("", ["pods/status"], ["patch"]),
    _rule("", ["pods/exec"], ["create", "get"]),
    _rule("coordination.k8s.io", ["leases"], ["get", "create", "update", "patch"]),
]
"""What the controller does in the namespace of its fleet only. The chart grants the same; a test uses every right."""

CERT_MANAGER_RULES: list[Object] = [
    _rule("cert-manager.io", ["certificates"], ["get", "create", "patch"]),
    _rule("cert-manager.io", ["certificates/status"], ["update"]),
    _rule("cert-manager.io", ["certificaterequests"], ["list"]),
]
"""Beyond that where the issuer is cert-manager: asking for leaves, ordering them anew, reading why none came."""


def _role(kind: str, metadata: Object, rules: list[Object]) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "rules": rules,
    }


def _binding(kind: str, metadata: Object, account: Object) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": metadata["name"]},
        "subjects": [account],
    }


def _controller_deployment(fleet: Fleet, image: str) -> Object:
    labels = {"app.kubernetes.io/name": "konverge-controller", "app.kubernetes.io/instance": fleet.name}
    probe = {"port": 10254, "scheme": "HTTP"}
    container = {
        "name": "controller",
        "image": image,
        "args": [
            "controller",
            "--fleet",
            fleet.name,
            "--namespace",
            fleet.namespace,
            "--listen",
            "0.0.0.0:10254",
        ],
        "ports": [{"name": "health", "containerPort": 10254, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/readyz", **probe}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", **probe},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
    }
    pod = {
        "serviceAccountName": fleet.controller,
        "terminationGracePeriodSeconds": 15,
        "affinity": anti_affinity(labels),
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(fleet, fleet.controller, "controller"),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
