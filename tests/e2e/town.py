"""A fleet's authority, its identities, and a proxy in this process, set up as a fleet's pods are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import NameOID

from konverge.decide.objects import IDENTITY_PATH, proxy_environment
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import Settings
from konverge.lab.pod import PodEnvironment
from konverge.model.fleet import Fleet, FleetSpec
from konverge.model.proxy import Proxy
from konverge.operate.identities import create_authority, issue_controller, issue_proxies
from konverge.pki import authority as authority_module
from konverge.pki.authority import Authority, Identity, name_server, request_controller
from konverge.pki.bundle import TrustBundle, build_bundle
from konverge.pki.contexts import build_client_context
from konverge.pki.files import IdentityFiles
from konverge.pki.handshake import prove

FLEET = Fleet(name="shop", namespace="kong", uid="3c4f6f3e-token", spec=FleetSpec(proxy_service="s"))
PORTS = {"admin": "8444", "status": "8100", "proxy": "8000"}
NAME = name_server("gw-1", FLEET.admin_service, FLEET.namespace)


class Town:
    """A fleet's authority and identities, and one proxy that runs with them."""

    def __init__(self, directory: Path) -> None:
        self.now = datetime.now(UTC)
        self.directory = directory
        self.authority = create_authority(FLEET, self.now)
        self.trust = self.trusting(self.authority)
        self.controller = issue_controller(FLEET, self.authority, self.trust, self.now)
        self.proxies = issue_proxies(FLEET, self.authority, self.trust, self.now)
        self.node: StandInKong | None = None
        self.ports: dict[str, int] = {}

    def trusting(self, *authorities: Authority) -> TrustBundle:
        return build_bundle([certificate for a in authorities for certificate in a.identity.chain[:1]], self.now)

    def client(self, authority: Authority | None = None, *, at: timedelta = timedelta(0), days: int = 1) -> Identity:
        issuer = authority or self.authority
        return issuer.issue(request_controller("shop"), self.now + at, lifetime=timedelta(days=days))

    def twin(self) -> Authority:
        """Another authority with the very subject of ours."""
        (name,) = self.authority.identity.chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority_module, "_generation", lambda *_: name.value)
            made = Authority.create("shop", self.now)
        assert made.certificate.subject == self.authority.certificate.subject
        assert made.certificate.fingerprint != self.authority.certificate.fingerprint
        return made

    def expired(self) -> Identity:
        """Two days pass for the proxy after a certificate of one day was issued."""
        assert self.node is not None
        self.node.faults.clock_offset = timedelta(days=2).total_seconds()
        return self.client()

    @property
    def proxy(self) -> Proxy:
        address = {f"{role}_port": self.ports[old] for role, old in PORTS.items()}
        return Proxy(name="gw-1", namespace="kong", ip="127.0.0.1", server_name=NAME, **address)

    def context(self, identity: Identity | None) -> ssl.SSLContext:
        return build_client_context(self.trust, identity)

    def write(self, files: IdentityFiles) -> None:
        for name, content in files.data.items():
            (self.directory / name).write_bytes(content)

    async def reload(self, files: IdentityFiles) -> None:
        self.write(files)
        assert self.node is not None
        self.node.hang_up()
        async with asyncio.timeout(20):  # the reload is in force a moment later, and tells nobody
            probe = self.context(self.controller.identity)
            probe.check_hostname, probe.verify_mode = False, ssl.CERT_NONE
            while (await prove("127.0.0.1", self.ports["8444"], NAME, probe)).accepted:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_town(directory: Path, proxies: Callable[[Town], IdentityFiles] | None = None) -> AsyncIterator[Town]:
    town = Town(directory)
    town.write(proxies(town) if proxies else town.proxies)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        free = [str(one.getsockname()[1]) for one in sockets]
    environment = proxy_environment(FLEET)
    for old, new in zip(("8444", "8100", "8000", "8443"), free, strict=True):
        town.ports[old] = int(new)
        environment = {k: v.replace(f"0.0.0.0:{old}", f"127.0.0.1:{new}") for k, v in environment.items()}
    mounts = {
        IDENTITY_PATH: str(directory),
        "/kong_prefix/": str(directory / "prefix"),
        "/kong_prefix": str(directory),
    }
    environment["KONVERGE_LAB_KONG_INSTANT"] = "on"
    town.node = StandInKong(Settings.from_env(environment, PodEnvironment(mounts=mounts)))
    await town.node.start()
    try:
        yield town
    finally:
        await town.node.stop()
