"""The controller's settings as its environment gives them: ``CONTROLLER_*`` as the real one reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from konverge.errors import UsageError

HINT = "reference/load.md#per-pod-controller"
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """What the controller does, where, and how often; times are seconds."""

    admin_url: str = "https://localhost:8444"
    skip_verify: bool = False
    publish_service: str = ""
    """``namespace/name`` of the Service whose addresses become the Ingresses' status."""
    ingress_class: str = "kong"
    sync_seconds: float = 3.0
    proxy_timeout: float = 30.0
    cache_sync: float = 1.0
    """Pause before the first push. The real controller's default is 5 s; the lab shortens it."""
    admin_tries: int = 60
    admin_delay: float = 1.0
    features: Mapping[str, bool] = field(default_factory=dict)
    webhook_listen: str = ""
    health_port: int = 10254
    metrics_port: int = 10255
    pod_name: str = ""
    pod_namespace: str = ""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> SidecarSettings:
        """Read the environment; UsageError names the variable that is off."""
        read = _Reader(environ)
        return cls(
            admin_url=read.text("KONG_ADMIN_URL", "https://localhost:8444").rstrip("/"),
            skip_verify=read.text("KONG_ADMIN_TLS_SKIP_VERIFY", "false").lower() == "true",
            publish_service=read.text("PUBLISH_SERVICE", ""),
            ingress_class=read.text("INGRESS_CLASS", "kong"),
            sync_seconds=read.number("PROXY_SYNC_SECONDS", 3.0),
            proxy_timeout=read.number("PROXY_TIMEOUT_SECONDS", 30.0),
            cache_sync=read.duration("INIT_CACHE_SYNC_DURATION", 1.0),
            admin_tries=int(read.number("KONG_ADMIN_INIT_RETRIES", 60)),
            admin_delay=read.duration("KONG_ADMIN_INIT_RETRY_DELAY", 1.0),
            features=parse_features(read.text("FEATURE_GATES", "")),
            webhook_listen=read.text("ADMISSION_WEBHOOK_LISTEN", "off"),
            pod_name=environ.get("POD_NAME", ""),
            pod_namespace=environ.get("POD_NAMESPACE", ""),
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    environ: Mapping[str, str]

    def text(self, name: str, default: str) -> str:
        return self.environ.get(f"CONTROLLER_{name}") or default

    def number(self, name: str, default: float) -> float:
        value = self.text(name, "")
        try:
            return float(value) if value else default
        except ValueError as error:
            raise UsageError(f"CONTROLLER_{name} {value!r} is no number", hint=HINT) from error

    def duration(self, name: str, default: float) -> float:
        value = self.text(name, "")
        return parse_duration(value, f"CONTROLLER_{name}") if value else default


def parse_duration(text: str, name: str) -> float:
    """Return the seconds of a Go duration such as ``1m30s``; UsageError names the variable."""
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise UsageError(f"{name} {text!r} is no duration such as 5s or 500ms", hint=HINT)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def parse_features(text: str) -> dict[str, bool]:
    """Return the feature gates of ``A=true,B=false``."""
    pairs = (item.split("=", 1) for item in text.split(",") if "=" in item)
    return {name.strip(): value.strip().lower() == "true" for name, value in pairs}
