"""Everything that is no resource: health, version, discovery, OpenAPI, metrics, token keys."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from konverge.lab.apiserver import discovery
from konverge.lab.apiserver.openapi import Documents
from konverge.lab.apiserver.requests import Request
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.store import Object
from konverge.lab.apiserver.tokens import ISSUER

TEXT = "text/plain; charset=utf-8"
HEALTH = ("healthz", "livez", "readyz")
CHECKS = ("ping", "log", "etcd", "informer-sync", "poststarthook/rbac/bootstrap-roles", "shutdown")


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that is ready to be sent."""

    body: bytes
    code: int = 200
    media: str = "application/json"


class PublicPaths:
    """Answers them for one server."""

    def __init__(self, state: State, address: str) -> None:
        self._state = state
        self._address = address
        self._documents = Documents(state.registry)

    def serve(self, request: Request) -> Answer:
        """Return the answer for a path; 404 in plain text where there is none."""
        parts = [part for part in request.path.split("/") if part]
        head = parts[0] if parts else ""
        if head in HEALTH:
            return self._health(request, head)
        if head == "version":
            return Answer(orjson.dumps(discovery.describe_version()))
        if head == "metrics":
            return Answer(self._state.metrics.expose().encode(), media="text/plain; version=0.0.4; charset=utf-8")
        if head in ("api", "apis"):
            return self._discover(request, parts)
        if head == "openapi":
            return self._openapi(parts)
        if request.path in ("/openid/v1/jwks", "/.well-known/openid-configuration"):
            return self._openid(request.path)
        if not parts:
            return Answer(
                orjson.dumps(
                    {
                        "paths": [
                            "/api",
                            "/apis",
                            "/healthz",
                            "/livez",
                            "/metrics",
                            "/openapi/v2",
                            "/openapi/v3",
                            "/readyz",
                            "/version",
                        ]
                    }
                )
            )
        return Answer(b"404 page not found\n", 404, TEXT)

    def _health(self, request: Request, name: str) -> Answer:
        if "verbose" not in request.query:
            return Answer(b"ok", media=TEXT)
        lines = [f"[+]{check} ok" for check in CHECKS] + [f"{name} check passed", ""]
        return Answer("\n".join(lines).encode(), media=TEXT)

    def _discover(self, request: Request, parts: list[str]) -> Answer:
        registry = self._state.registry
        document: Object | None
        if len(parts) == 1:
            media = discovery.wants_aggregated(request.headers.get("Accept", ""))
            if media:
                return Answer(orjson.dumps(discovery.aggregate(registry, parts[0] == "api")), media=media)
            document = (
                discovery.list_versions(self._address) if parts[0] == "api" else discovery.list_groups(registry)
            )
        elif parts[0] == "api":
            document = discovery.list_resources(registry, "", parts[1])
        elif len(parts) == 2:
            document = discovery.describe_group(registry, parts[1])
        else:
            document = discovery.list_resources(registry, parts[1], parts[2])
        if document is None:
            return Answer(b"404 page not found\n", 404, TEXT)
        return Answer(orjson.dumps(document))

    def _openapi(self, parts: list[str]) -> Answer:
        if parts[1:] == ["v2"]:
            return Answer(self._documents.version2())
        if parts[1:] == ["v3"]:
            return Answer(self._documents.index())
        if parts[1:2] == ["v3"]:
            group, version = (parts[3], parts[4]) if parts[2:3] == ["apis"] and len(parts) == 5 else ("", parts[-1])
            if self._state.registry.within(group, version):
                return Answer(self._documents.version3(group, version))
        return Answer(b"404 page not found\n", 404, TEXT)

    def _openid(self, path: str) -> Answer:
        if path.endswith("jwks"):
            return Answer(orjson.dumps(self._state.issuer.publish()), media="application/jwk-set+json")
        document = {
            "issuer": ISSUER,
            "jwks_uri": f"https://{self._address}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return Answer(orjson.dumps(document))
