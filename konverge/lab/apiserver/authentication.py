"""Who asks: a client certificate, a token from the file, or a service account token. Nobody else gets in."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from konverge.errors import UsageError
from konverge.lab.apiserver.requests import ANONYMOUS, User
from konverge.lab.apiserver.state import State
from konverge.lab.apiserver.statuses import unauthorized
from konverge.lab.apiserver.tokens import ISSUER, Claims

AUTHENTICATED = "system:authenticated"
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})
CACHE_SIZE = 1024


def read_tokens(path: Path | None) -> dict[str, User]:
    """Read a static token file: token,user,uid,"group1,group2" per line."""
    if path is None:
        return {}
    users: dict[str, User] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.reader(file), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 3:
                raise UsageError(f"{path}:{number}: a token line needs token,user,uid")
            groups = tuple(g.strip() for g in row[3].split(",")) if len(row) > 3 and row[3] else ()
            users[row[0].strip()] = User(row[1].strip(), (*groups, AUTHENTICATED), row[2].strip())
    return users


class Authenticator:
    """Turns credentials into users; verified tokens are remembered until they expire."""

    def __init__(self, state: State, tokens: dict[str, User]) -> None:
        self._state = state
        self._tokens = tokens
        self._claims: dict[str, Claims] = {}

    def authenticate(self, headers: Mapping[str, str], certificate: Mapping[str, Any] | None, path: str) -> User:
        """Return the user of a request; 401 where credentials are missing or wrong."""
        authorization = headers.get("Authorization", "")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            user = self.check_token(token.strip()) if scheme.lower() == "bearer" else None
            if user is None:
                raise unauthorized()
            return user
        if certificate:
            return read_certificate(certificate)
        if path in OPEN_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return ANONYMOUS
        raise unauthorized()

    def check_token(self, token: str, audiences: tuple[str, ...] = (ISSUER,)) -> User | None:
        """Return the user of a token for one of the audiences, or None where it is not valid."""
        known = self._tokens.get(token)
        if known is not None:
            return known
        claims = self._claims.get(token)
        if claims is None or claims.expires <= self._state.clock.now().timestamp():
            claims = self._state.issuer.verify(token)
            if claims is None:
                return None
            if len(self._claims) >= CACHE_SIZE:
                self._claims.clear()
            self._claims[token] = claims
        if not set(claims.audiences) & set(audiences):
            return None
        return self._find_account(claims)

    def _find_account(self, claims: Claims) -> User | None:
        account = self._state.store.collection("serviceaccounts").get(claims.namespace, claims.account)
        if account is None or account.object["metadata"]["uid"] != claims.account_uid:
            return None
        extra = {"authentication.kubernetes.io/credential-id": (f"JTI={claims.id}",)}
        if claims.pod:
            pod = self._state.store.collection("pods").get(claims.namespace, claims.pod)
            if pod is None or pod.object["metadata"]["uid"] != claims.pod_uid:
                return None
            extra["authentication.kubernetes.io/pod-name"] = (claims.pod,)
            extra["authentication.kubernetes.io/pod-uid"] = (claims.pod_uid,)
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{claims.namespace}", AUTHENTICATED)
        name = f"system:serviceaccount:{claims.namespace}:{claims.account}"
        return User(name, groups, claims.account_uid, extra)


def read_certificate(certificate: Mapping[str, Any]) -> User:
    """Return the user that a verified client certificate names."""
    name, groups = "", []
    for part in certificate.get("subject", ()):
        for key, value in part:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED))
