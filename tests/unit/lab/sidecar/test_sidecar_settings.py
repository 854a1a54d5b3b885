from __future__ import annotations

import pytest

from konverge.errors import UsageError
from konverge.lab.legacy import legacy_release
from konverge.lab.sidecar.settings import SidecarSettings, parse_duration, parse_features


def test_the_charts_environment_is_understood() -> None:
    deployment = next(o for o in legacy_release("edge", "gateways") if o["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    settings = SidecarSettings.read({entry["name"]: entry.get("value", "") for entry in container["env"]})
    assert settings.admin_url == "https://localhost:8444"
    assert settings.skip_verify
    assert settings.publish_service == "gateways/edge-kong-proxy"
    assert settings.ingress_class == "kong"
    assert settings.webhook_listen == "0.0.0.0:8080"
    assert settings.sync_seconds == 3.0


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5.0), ("500ms", 0.5), ("1m30s", 90.0), ("1.5h", 5400.0)])
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text, "X") == seconds


@pytest.mark.parametrize("text", ["5", "s", "5 s", "5sx", "-1s"])
def test_other_durations_are_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match="CONTROLLER_INIT_CACHE_SYNC_DURATION"):
        SidecarSettings.read({"CONTROLLER_INIT_CACHE_SYNC_DURATION": text})


def test_a_number_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="CONTROLLER_PROXY_SYNC_SECONDS"):
        SidecarSettings.read({"CONTROLLER_PROXY_SYNC_SECONDS": "often"})


def test_feature_gates_are_pairs() -> None:
    assert parse_features("A=true, B=False,C") == {"A": True, "B": False}
