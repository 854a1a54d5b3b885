"""The server as one object: certificates, store, controllers and listener, started and stopped together."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from konverge.lab.apiserver.allocating import Allocator
from konverge.lab.apiserver.audit import Audit
from konverge.lab.apiserver.authentication import Authenticator, read_tokens
from konverge.lab.apiserver.authorizing import MASTERS, Authorizer
from konverge.lab.apiserver.background import Background
from konverge.lab.apiserver.bootstrap import Bootstrap
from konverge.lab.apiserver.certificates import Authority, Pair, write_private
from konverge.lab.apiserver.control import compact
from konverge.lab.apiserver.custom.publishing import Publisher
from konverge.lab.apiserver.faults import Faults
from konverge.lab.apiserver.garbage import Collector
from konverge.lab.apiserver.handling import Handler
from konverge.lab.apiserver.listening import Listener
from konverge.lab.apiserver.metrics import Metrics
from konverge.lab.apiserver.persisting import Journal
from konverge.lab.apiserver.publicpaths import PublicPaths
from konverge.lab.apiserver.reading import Snapshots
from konverge.lab.apiserver.state import Settings, State
from konverge.lab.apiserver.store import Store
from konverge.lab.apiserver.tokens import TokenIssuer

SERVICE_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


class ApiServer:
    """A stand-in Kubernetes API server; use as an async context manager.

    ``url`` and ``kubeconfig`` say how to reach it as a cluster administrator. ``faults``, ``metrics`` and
    ``state.store`` are there for tests that run in the same process.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.directory = settings.directory
        self.kubeconfig = settings.directory / "admin.kubeconfig"
        self.url = ""
        self.state: State
        self._journal: Journal | None = None
        self._listener: Listener
        self._audit: Audit
        self._authority: Authority

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def faults(self) -> Faults:
        """Where faults are switched on and off."""
        return self.state.faults

    @property
    def metrics(self) -> Metrics:
        """Counters of requests and watches."""
        return self.state.metrics

    def compact(self) -> None:
        """Forget all history: watches and pages from older versions get 410."""
        compact(self.state)

    async def refuse(self, seconds: float) -> None:
        """Refuse connections for a while; those that are open are cut."""
        await self._listener.refuse(seconds)

    def cut_connections(self) -> None:
        """Abort every open connection."""
        self._listener.cut()

    async def start(self) -> None:
        """Restore or create everything, and listen."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._authority = Authority.load(self.directory)
        state = State(self.settings, Store(self.settings.history))
        self.state = state
        state.tasks = Background()
        state.snapshots = Snapshots()
        state.issuer = TokenIssuer.load(self.directory, state.clock)
        if self.settings.persist:
            self._journal = Journal(self.directory, state.store)
            self._journal.restore()
            self._journal.start()
        state.allocator = Allocator(self.settings.service_cidr, state.store)
        Publisher(state)
        collector = Collector(state)
        await self._listen(state)
        Bootstrap(state, self._authority.certificate, self._listener.address).run()
        state.tasks.spawn(collector.run())
        self._write_kubeconfig()
        await self._listener.start()

    async def _listen(self, state: State) -> None:
        host, _, port = self.settings.listen.rpartition(":")
        authenticator = Authenticator(state, read_tokens(self.settings.tokens_file))
        self._audit = Audit(self.settings.audit_file, state.clock)
        address = f"{host}:{port}"
        handler = Handler(
            state,
            authenticator,
            Authorizer(state),
            PublicPaths(state, address),
            self._audit,
            self._kubelet_context(),
        )
        self._listener = Listener(handler, host.strip("[]"), int(port), self._server_context(host.strip("[]"), state))
        state.listener = self._listener
        self.url = f"https://{host}:{self._listener.address[1]}"

    def _server_context(self, host: str, state: State) -> ssl.SSLContext:
        names = dict.fromkeys([host, "127.0.0.1", *SERVICE_NAMES, state.allocator.first, *self.settings.advertise])
        pair = self._authority.sign_server(list(names))
        certificate, key = self._write_pair("apiserver", pair)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(cadata=self._authority.certificate.decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _kubelet_context(self) -> ssl.SSLContext:
        """Return the context towards kubelets: they are trusted by the lab's CA, by whatever name they have."""
        pair = self._authority.sign_client("kube-apiserver-kubelet-client", ["kubeadm:cluster-admins"])
        certificate, key = self._write_pair("kubelet-client", pair)
        context = ssl.create_default_context(cadata=self._authority.certificate.decode())
        context.check_hostname = False
        context.load_cert_chain(certificate, key)
        return context

    def _write_pair(self, name: str, pair: Pair) -> tuple[Path, Path]:
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate.write_bytes(pair.certificate)
        write_private(key, pair.key)
        return certificate, key

    def _write_kubeconfig(self) -> None:
        pair = self._authority.sign_client("kubernetes-admin", [MASTERS])
        write_private(self.kubeconfig, self.build_kubeconfig(pair))

    def build_kubeconfig(self, pair: Pair) -> bytes:
        """Return a kubeconfig for a client certificate."""
        return _encode_kubeconfig(
            self.url,
            self._authority.certificate,
            {
                "client-certificate-data": base64.b64encode(pair.certificate).decode(),
                "client-key-data": base64.b64encode(pair.key).decode(),
            },
        )

    def issue_kubeconfig(self, user: str, groups: tuple[str, ...] = ()) -> bytes:
        """Return a kubeconfig for any user, by a certificate of the lab's CA."""
        return self.build_kubeconfig(self._authority.sign_client(user, groups))

    async def stop(self) -> None:
        """Stop listening, end watches, write the store."""
        for watch in list(self.state.faults.watches):
            watch.close()
        await self._listener.stop()
        await self.state.tasks.stop()
        await asyncio.sleep(0)
        if self._journal is not None:
            self._journal.write_snapshot()
            self._journal.close()
        self._audit.close()


def _encode_kubeconfig(url: str, ca: bytes, user: dict[str, str]) -> bytes:
    """Return a kubeconfig as JSON, which is YAML too."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "lab",
                "cluster": {"server": url, "certificate-authority-data": base64.b64encode(ca).decode()},
            }
        ],
        "users": [{"name": "lab", "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)
