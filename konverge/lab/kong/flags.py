"""Settings from command-line flags, shared by ``python -m konverge.lab.kong`` and ``konverge lab kong``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from konverge.lab.kong.listen import Listen, parse_listen
from konverge.lab.kong.settings import Settings, Timing
from konverge.lab.pod import PodEnvironment


@dataclass(slots=True)
class Flags:
    """The flags of one stand-in that runs alone."""

    admin: str = ""
    status: str = ""
    proxy: str = ""
    prefix: str = ""
    admin_tls: str = ""
    proxy_tls: str = ""
    cert: str = ""
    key: str = ""
    client_ca: str = ""
    declarative_config: str = ""
    router_flavor: str = "traditional_compatible"
    instant: bool = False
    database: str = ""
    update_frequency: str = "5"
    enterprise: bool = False

    def settings(self) -> Settings:
        """Return settings. Raises BadListen."""
        return Settings(
            admin=_listens(self.admin, "") + _listens(self.admin_tls, " http2 ssl"),
            status=_listens(self.status, ""),
            proxy=_listens(self.proxy, "") + _listens(self.proxy_tls, " http2 ssl"),
            prefix=_path(self.prefix),
            shown_prefix=self.prefix or "/kong_prefix",
            declarative_config=_path(self.declarative_config),
            admin_cert=_path(self.cert),
            admin_key=_path(self.key),
            client_ca=_path(self.client_ca),
            verify_client="on" if self.client_ca else "off",
            router_flavor=self.router_flavor,
            enterprise=self.enterprise,
            database="postgres" if self.database else "off",
            database_file=_path(self.database),
            db_update_frequency=float(self.update_frequency),
            worker_state_update_frequency=float(self.update_frequency),
            timing=Timing.instant() if self.instant else Timing(),
            pod=PodEnvironment(),
        )


def _listens(address: str, flags: str) -> list[Listen]:
    return parse_listen(address + flags + " reuseport backlog=16384") if address else []


def _path(text: str) -> Path | None:
    return Path(text) if text else None
