"""Sample applications behind the proxies, and the load that exercises each of their routes."""

from __future__ import annotations

import base64

from konverge.kube.resources import Object
from konverge.lab.legacy.certificates import create_authority, issue_server
from konverge.lab.legacy.templates import fill
from konverge.lab.load.plan import LoadPlan, Target, TrafficClass

SHOP = "shop.lab.test"
API = "api.lab.test"
TENANT = "blue.tenants.lab.test"
SAMPLE_KEY = "lab-sample-key"
"""The key of the sample consumer; it opens nothing but the sample."""
STREAM_SECONDS = 10.0


def sample_applications(
    namespace: str, *, replicas: int = 2, ingress_class: str = "kong", image: str = "konverge/echo:1"
) -> list[Object]:
    """Return two echo applications with Services, Ingresses, plugins and a consumer; the certificate is new."""
    authority = create_authority("lab sample authority")
    values = {
        "namespace": namespace,
        "replicas": replicas,
        "class": ingress_class,
        "image": image,
        "key": base64.b64encode(SAMPLE_KEY.encode()).decode(),
        "tls": issue_server(authority, [SHOP, API]).secret_data(),
    }
    return fill("sample.yaml", values)


def sample_load(base_url: str, rate: float = 200.0, *, sessions: int = 4, connections: int = 16) -> LoadPlan:
    """Return a plan for every route of the sample: 40 % keep-alive, 25 % fresh, 20 % bodies, 15 % with a key.

    ``base_url`` is the proxies' address; ``sessions`` streams and as many WebSockets are held open beside.
    """
    return LoadPlan(
        base_url=base_url,
        rate=rate,
        classes=[
            TrafficClass(
                name="keepalive", kind="keepalive", share=40, connections=connections, targets=_open_targets()
            ),
            TrafficClass(name="fresh", kind="fresh", share=25, targets=_open_targets()),
            TrafficClass(
                name="bodies",
                kind="body",
                share=20,
                connections=connections,
                body_bytes=[256, 8192, 65536],
                targets=[_shop("post-shop", "/upload", method="POST"), _orders("post-orders", "/orders/new", "POST")],
            ),
            TrafficClass(
                name="credentialed", kind="keepalive", share=15, connections=connections, targets=_keyed_targets()
            ),
            TrafficClass(
                name="streams",
                kind="stream",
                sessions=sessions,
                seconds=STREAM_SECONDS,
                targets=[Target(name="stream", path="/stream", host=SHOP)],
            ),
            TrafficClass(
                name="websockets",
                kind="websocket",
                sessions=sessions,
                seconds=STREAM_SECONDS,
                targets=[Target(name="websocket", path="/ws", host=SHOP)],
            ),
        ],
    )


def _open_targets() -> list[Target]:
    return [
        _shop("shop", "/"),
        _orders("orders", "/orders/7"),
        _orders("exact", "/exact"),
        Target(name="tenant", path="/", host=TENANT, contains='"x-tenant-gateway":"kong"'),
        Target(name="closed", path="/closed", host=SHOP, expect=[451], contains="closed"),
    ]


def _keyed_targets() -> list[Target]:
    credentials = {"apikey": SAMPLE_KEY}
    return [
        Target(name="keyed-v1", path="/v1/items", host=API, credentials=credentials, contains='"pod":"shop-'),
        Target(name="keyed-v2", path="/v2/items/7", host=API, credentials=credentials, contains='"pod":"orders-'),
        Target(name="unkeyed", path="/v1/items", host=API, expect=[401]),
    ]


def _shop(name: str, path: str, method: str = "GET") -> Target:
    return Target(name=name, path=path, host=SHOP, method=method, contains='"pod":"shop-')


def _orders(name: str, path: str, method: str = "GET") -> Target:
    return Target(name=name, path=path, host=SHOP, method=method, contains='"pod":"orders-')
