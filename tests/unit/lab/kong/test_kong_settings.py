"""Settings: listen directives, nginx units, container environments."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from konverge.lab.kong.faults import Faults
from konverge.lab.kong.listen import BadListen, Listen, parse_listen
from konverge.lab.kong.node import StandInKong
from konverge.lab.kong.settings import BadSetting, Settings, Timing, parse_duration, parse_size
from konverge.lab.pod import PodEnvironment


def test_listen_directives() -> None:
    found = parse_listen("127.0.0.1:8444 http2 ssl reuseport backlog=16384, [::1]:8444 ssl")
    assert found == [
        Listen("127.0.0.1", 8444, ("http2", "ssl", "reuseport", "backlog=16384")),
        Listen("[::1]", 8444, ("ssl",)),
    ]
    assert found[0].describe()["listener"] == "127.0.0.1:8444 ssl reuseport backlog=16384"
    assert parse_listen("off") == []


@pytest.mark.parametrize("text", ["127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "127.0.0.1:1 sssl"])
def test_bad_listen_directives(text: str) -> None:
    with pytest.raises(BadListen):
        parse_listen(text)


def test_units() -> None:
    assert (parse_size("10m"), parse_size("0"), parse_size("8k")) == (10485760, 0, 8192)
    assert (parse_duration("1d"), parse_duration("5s"), parse_duration("10m")) == (86400, 5, 600)
    with pytest.raises(BadSetting):
        parse_size("10x")


def test_container_environment(tmp_path: Path) -> None:
    pod = PodEnvironment(ip="127.9.64.2", loopback="127.9.128.2", mounts={"/certs": str(tmp_path)})
    env = {
        "KONG_ADMIN_LISTEN": "0.0.0.0:8444 http2 ssl",
        "KONG_STATUS_LISTEN": "0.0.0.0:8100",
        "KONG_PROXY_LISTEN": "off",
        "KONG_ADMIN_SSL_CERT": "/certs/tls.crt",
        "KONG_NGINX_ADMIN_SSL_VERIFY_CLIENT": "on",
        "KONG_NGINX_ADMIN_SSL_CLIENT_CERTIFICATE": "/certs/ca.crt",
        "KONG_NGINX_ADMIN_SSL_SESSION_TICKETS": "off",
        "KONG_NGINX_ADMIN_CLIENT_MAX_BODY_SIZE": "64m",
    }
    settings = Settings.from_env(env, pod)
    assert settings.admin_cert == tmp_path / "tls.crt"
    assert settings.client_ca == tmp_path / "ca.crt"
    assert (settings.verify_client, settings.session_tickets, settings.session_cache) == ("on", False, True)
    assert settings.client_max_body == 64 * 1024 * 1024
    assert settings.proxy == []


async def test_the_loopbacks_of_a_pod_are_bound_once() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    pod = PodEnvironment(ip="127.0.0.2", loopback="127.0.0.1")
    settings = Settings(admin=parse_listen(f"127.0.0.1:{port}, [::1]:{port}"), pod=pod, timing=Timing.instant())
    node = StandInKong(settings)
    await node.start()
    try:
        assert [(binding.host, binding.port) for _, _, binding in node.bindings] == [("127.0.0.1", port)]
    finally:
        await node.stop()


def test_a_database_is_refused() -> None:
    with pytest.raises(BadSetting, match="KONG_DATABASE 'cassandra'"):
        Settings.from_env({"KONG_DATABASE": "cassandra"}, PodEnvironment())


def test_observed_timing() -> None:
    timing = Timing()
    assert timing.load_time(1000) == pytest.approx(0.36, abs=0.01)
    assert timing.router_delay(2) == pytest.approx(0.003, abs=0.001)
    assert timing.router_delay(1000) == pytest.approx(0.06, abs=0.005)
    assert timing.router_delay(5000) == pytest.approx(0.57, abs=0.01)
    assert timing.router_delay(10000) == pytest.approx(0.68)
    assert Timing.instant().load_time(10000) == Timing.instant().router_delay(10000) == 0


def test_faults_are_checked_and_used_up() -> None:
    faults = Faults()
    faults.update({"busy": 2, "delay": 1})
    assert [faults.take("busy") for _ in range(3)] == [True, True, False]
    assert faults.delay == 1.0
    faults.update({"hang": -1})
    assert all(faults.take("hang") for _ in range(5))
    with pytest.raises(ValueError, match="unknown fault 'nope'"):
        faults.update({"nope": 1})
    with pytest.raises(ValueError, match="takes a int"):
        faults.update({"busy": "2"})
