"""Service account tokens: JWTs signed with ES256, bound to an account and perhaps a pod, with an audience."""

from __future__ import annotations

import base64
import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from konverge.lab.apiserver.certificates import write_private
from konverge.lab.apiserver.clock import Clock
from konverge.lab.apiserver.store import Object

ISSUER = "https://kubernetes.default.svc"
DEFAULT_SECONDS = 3600
MIN_SECONDS = 600
CURVE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Claims:
    """What a valid token says."""

    namespace: str
    account: str
    account_uid: str
    pod: str
    pod_uid: str
    expires: float
    audiences: tuple[str, ...]
    id: str


class TokenIssuer:
    """Signs and verifies; the key lies in the directory, so that tokens survive a restart."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_id = _encode(hashlib.sha256(public).digest())

    @classmethod
    def load(cls, directory: Path, clock: Clock) -> TokenIssuer:
        """Read ``sa.key``, or make it."""
        path = directory / "sa.key"
        if path.exists():
            key = serialization.load_pem_private_key(path.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{path} is not an EC key")
            return cls(key, clock)
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(path, pem)
        return cls(made, clock)

    def issue(
        self, account: Object, seconds: int, audiences: tuple[str, ...] = (), pod: Object | None = None
    ) -> tuple[str, float]:
        """Return a token for an account and the time at which it expires (seconds since the epoch)."""
        now = self._clock.now().timestamp()
        metadata = account["metadata"]
        bound: dict[str, Any] = {
            "namespace": metadata["namespace"],
            "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]},
        }
        if pod is not None:
            bound["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
            bound["warnafter"] = int(now) + seconds
        payload = {
            "aud": list(audiences or (ISSUER,)),
            "exp": int(now) + seconds,
            "iat": int(now),
            "iss": ISSUER,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": bound,
            "nbf": int(now),
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
        }
        return self._sign(payload), float(int(now) + seconds)

    def _sign(self, payload: dict[str, Any]) -> str:
        header = {"alg": "ES256", "kid": self.key_id}
        text = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(payload))}"
        r, s = decode_dss_signature(self._key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{_encode(r.to_bytes(CURVE_BYTES, 'big') + s.to_bytes(CURVE_BYTES, 'big'))}"

    def verify(self, token: str) -> Claims | None:
        """Return the claims of a token that this server signed and that has not expired, else None."""
        try:
            head, body, signature = token.split(".")
            raw = _decode(signature)
            r, s = int.from_bytes(raw[:CURVE_BYTES], "big"), int.from_bytes(raw[CURVE_BYTES:], "big")
            self._key.public_key().verify(
                encode_dss_signature(r, s), f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256())
            )
            claims = _read_claims(orjson.loads(_decode(body)))
        except (ValueError, KeyError, TypeError, InvalidSignature):
            return None
        return claims if claims.expires > self._clock.now().timestamp() else None

    def publish(self) -> Object:
        """Return the key set that the token's readers verify with (RFC 7517)."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "use": "sig",
            "kty": "EC",
            "kid": self.key_id,
            "crv": "P-256",
            "alg": "ES256",
            "x": _encode(numbers.x.to_bytes(CURVE_BYTES, "big")),
            "y": _encode(numbers.y.to_bytes(CURVE_BYTES, "big")),
        }
        return {"keys": [key]}


def _read_claims(payload: dict[str, Any]) -> Claims:
    bound = payload["kubernetes.io"]
    pod = bound.get("pod") or {}
    return Claims(
        bound["namespace"],
        bound["serviceaccount"]["name"],
        bound["serviceaccount"]["uid"],
        pod.get("name", ""),
        pod.get("uid", ""),
        float(payload["exp"]),
        tuple(payload["aud"]),
        payload["jti"],
    )


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
