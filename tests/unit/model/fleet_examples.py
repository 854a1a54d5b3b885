"""Specs of a ProxyFleet that are accepted or refused, by the models and by an API server alike."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]

ACCEPTED: dict[str, Spec] = {
    "least": {},
    "longest-service": {"proxyService": "s" * 63},
    "one-letter": {"proxyService": "s"},
    "canary-as-large-as-a-wave": {"rollout": {"canary": 4, "waveSize": 4}},
    "no-canary": {"rollout": {"canary": 0}},
    "short-leaves": {"identity": {"leafHours": 1, "authorityHours": 2}},
    "cert-manager": {"identity": {"issuer": {"kind": "cert-manager", "name": "ca"}}},
    "filled-secrets": {"identity": {"issuer": {"kind": "secret"}}},
    "sealed-by-a-file": {"identity": {"store": {"kind": "sealed", "keyName": "/etc/kek"}}},
    "sealed-by-vault": {
        "identity": {
            "store": {"kind": "sealed", "keySource": "vault", "keyName": "k", "vaultAddress": "https://vault:8200"}
        }
    },
    "plain-store-ignores-vault": {"identity": {"store": {"kind": "secret", "keySource": "vault"}}},
    "window": {"identity": {"windows": [{"days": ["Sat"], "start": "02:30", "timezone": "Europe/Berlin"}]}},
    "zone-with-sign": {"identity": {"windows": [{"timezone": "Etc/GMT+3"}]}},
    "reloads-by-number": {"identity": {"reloadsAtOnce": 5}},
    "reloads-by-share": {"identity": {"reloadsAtOnce": "100%"}},
    "digest": {"image": "registry:5000/kong@sha256:" + "0" * 64},
    "pinned": {"pinnedRevision": 7},
    "feature": {"features": {"RewriteURIs": True}},
}

REFUSED: dict[str, tuple[Spec, str, str]] = {
    "service-in-capitals": ({"proxyService": "Shop"}, "spec.proxyService", "no name of a Service"),
    "service-with-domain": ({"proxyService": "shop.ns.svc"}, "spec.proxyService", "without namespace and domain"),
    "service-begins-with-a-digit": ({"proxyService": "9shop"}, "spec.proxyService", "no name of a Service"),
    "service-ends-with-a-dash": ({"proxyService": "shop-"}, "spec.proxyService", "no name of a Service"),
    "no-ingress-class": ({"ingressClass": ""}, "spec.ingressClass", "write the name of an IngressClass"),
    "image-with-a-blank": ({"image": "kong :3.9"}, "spec.image", "write REPOSITORY:TAG"),
    "no-image": ({"image": ""}, "spec.image", "write REPOSITORY:TAG"),
    "large-canary": ({"rollout": {"canary": 9, "waveSize": 4}}, "spec.rollout.canary", "at most waveSize"),
    "leaf-as-long-as-its-authority": (
        {"identity": {"leafHours": 9, "authorityHours": 9}},
        "spec.identity.leafHours",
        "write leafHours below authorityHours",
    ),
    "authority-shorter-than-the-default-leaf": (
        {"identity": {"authorityHours": 100}},
        "spec.identity.leafHours",
        "must not outlive",
    ),
    "cert-manager-without-issuer": (
        {"identity": {"issuer": {"kind": "cert-manager"}}},
        "spec.identity.issuer.name",
        "write name: ISSUER",
    ),
    "cert-manager-with-an-empty-issuer": (
        {"identity": {"issuer": {"kind": "cert-manager", "name": ""}}},
        "spec.identity.issuer.name",
        "write name: ISSUER",
    ),
    "sealed-without-key": ({"identity": {"store": {"kind": "sealed"}}}, "spec.identity.store.keyName", "keyName"),
    "vault-without-address": (
        {"identity": {"store": {"kind": "sealed", "keySource": "vault", "keyName": "k"}}},
        "spec.identity.store.vaultAddress",
        "https://HOST:8200",
    ),
    "vault-in-the-clear": (
        {
            "identity": {
                "store": {"kind": "sealed", "keySource": "vault", "keyName": "k", "vaultAddress": "http://v:8200"}
            }
        },
        "spec.identity.store.vaultAddress",
        "an address with TLS",
    ),
    "no-zone": ({"identity": {"windows": [{"timezone": ""}]}}, "spec.identity.windows[0].timezone", "Europe/Berlin"),
    "zone-with-a-blank": (
        {"identity": {"windows": [{}, {"timezone": "Europe/New York"}]}},
        "spec.identity.windows[1].timezone",
        "Europe/Berlin",
    ),
}

REFUSED |= {
    f"reloads-{name}": ({"identity": {"reloadsAtOnce": value}}, "spec.identity.reloadsAtOnce", "from 1% to 100%")
    for name, value in {
        "none": 0,
        "nobody": "0%",
        "text": "ten",
        "more-than-all": "101%",
        "number-as-text": "5",
    }.items()
}

BOUNDED: dict[str, tuple[Spec, str]] = {
    "negative-pin": ({"pinnedRevision": -1}, "spec.pinnedRevision"),
    "unknown-mode": ({"mode": "hybrid"}, "spec.mode"),
    "long-service": ({"proxyService": "s" * 64}, "spec.proxyService"),
    "history-of-one": ({"historyLimit": 1}, "spec.historyLimit"),
    "shrinking-waves": ({"rollout": {"growth": 0.5}}, "spec.rollout.growth"),
    "reloads-list": ({"identity": {"reloadsAtOnce": [1]}}, "spec.identity.reloadsAtOnce"),
    "reloads-bool": ({"identity": {"reloadsAtOnce": True}}, "spec.identity.reloadsAtOnce"),
    "no-clock-time": ({"identity": {"windows": [{"start": "24:00"}]}}, "spec.identity.windows[0].start"),
}
"""Refused by the schema itself; the words are the API server's or pydantic's own."""


def complete(spec: Spec) -> Spec:
    """Give a spec its one required field."""
    return {"proxyService": "shop", **spec}
