"""Random configurations that collide a lot: few names, ids that are sometimes given, values that wander."""

from __future__ import annotations

import datetime
import random
from functools import cache
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Entity = dict[str, Any]


@cache
def make_certificate(number: int) -> tuple[str, str]:
    """Return a self-signed certificate and its key, PEM; the same for the same number."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"c{number}.example.com")])
    start = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number + 1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
    )
    encoding = serialization.Encoding.PEM
    cert = builder.sign(key, hashes.SHA256()).public_bytes(encoding).decode()
    secret = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    return cert, secret


def identify(kind: str, number: int) -> str:
    return str(uuid5(NAMESPACE_DNS, f"{kind}-{number}"))


class Maker:
    """Makes valid configurations from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def _flip(self) -> bool:
        return self.random.random() < 0.5

    def _shuffled(self, *names: str) -> list[str]:
        return self.random.sample(names, len(names))

    def _some(self, *names: str) -> list[str]:
        return self.random.sample(names, self.random.randint(0, len(names)))

    def _with_id(self, kind: str, taken: set[int], entity: Entity) -> Entity:
        number = self.random.randint(0, 4)
        if self._flip() and number not in taken:
            taken.add(number)
            return {"id": identify(kind, number), **entity}
        return entity

    def _plugins(self, instances: list[str]) -> list[Entity]:
        configs: dict[str, Entity] = {
            "cors": {},
            "rate-limiting": {"minute": self.random.randint(1, 3)},
            "request-termination": {"status_code": self.random.choice([403, 418])},
        }
        plugins: list[Entity] = []
        for name in self._some(*configs):
            plugin: Entity = {"name": name, "config": configs[name]}
            if instances and self._flip():
                plugin["instance_name"] = instances.pop()
            plugins.append(plugin)
        return plugins

    def _certificates(self) -> list[Entity]:
        snis, taken = self._shuffled("a.example.com", "b.example.com", "c.example.com"), set[int]()
        made = []
        for number in self.random.sample(range(3), self.random.randint(0, 3)):
            cert, key = make_certificate(number)
            names = [{"name": snis.pop()}] if self._flip() else []
            made.append(self._with_id("certificates", taken, {"cert": cert, "key": key, "snis": names}))
        return made

    def _upstreams(self) -> list[Entity]:
        taken, made = set[int](), []
        for name in self._some("up1", "up2", "up3"):
            ports = self.random.sample(range(1, 4), self.random.randint(0, 3))
            targets = [{"target": f"127.0.0.1:{port}", "weight": self.random.choice([10, 100])} for port in ports]
            made.append(self._with_id("upstreams", taken, {"name": name, "slots": 100, "targets": targets}))
        return made

    def _services(self, instances: list[str]) -> list[Entity]:
        routes, taken, taken_routes = self._shuffled("r1", "r2", "r3", "r4"), set[int](), set[int]()
        made = []
        for name in self._some("s1", "s2", "s3"):
            host = self.random.choice(["up1", "up2", "example.com"])
            service: Entity = {"name": name, "host": host, "plugins": self._plugins(instances), "routes": []}
            for _ in range(self.random.randint(0, min(2, len(routes)))):
                paths = [self.random.choice(["/x", "/y"])]
                route = {"name": routes.pop(), "paths": paths, "plugins": self._plugins(instances)}
                service["routes"].append(self._with_id("routes", taken_routes, route))
            made.append(self._with_id("services", taken, service))
        return made

    def _consumers(self) -> list[Entity]:
        customs = self._shuffled("A", "B", "C", "D")
        keys, users = self._shuffled("k1", "k2", "k3"), self._shuffled("u1", "u2", "u3")
        made = []
        for name in self._some("alice", "bob", "carol"):
            consumer: Entity = {"username": name, "acls": [{"group": group} for group in self._some("g1", "g2")]}
            if self._flip():
                consumer["custom_id"] = customs.pop()
            if self._flip():
                consumer["keyauth_credentials"] = [{"key": keys.pop()}]
            if self._flip():
                password = self.random.choice(["p1", "p2"])
                consumer["basicauth_credentials"] = [{"username": users.pop(), "password": password}]
            made.append(consumer)
        return [*made, {"custom_id": customs.pop()}] if self._flip() else made

    def make(self) -> dict[str, Any]:
        """Return a valid configuration."""
        instances = self._shuffled("one", "two", "three")
        return {
            "_format_version": "3.0",
            "certificates": self._certificates(),
            "upstreams": self._upstreams(),
            "services": self._services(instances),
            "consumers": self._consumers(),
            "plugins": self._plugins(instances),
        }
