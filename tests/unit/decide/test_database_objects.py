"""What proxies with a database are deployed with."""

from __future__ import annotations

from konverge.decide.objects import build_proxy_deployment, proxy_environment
from konverge.model.fleet import Database, Fleet, FleetSpec

PLAIN = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s"))
DATABASE = Database(host="postgres.data.svc", password_secret="kong-postgres", tls=True)
FLEET = Fleet(name="shop", namespace="default", spec=FleetSpec(proxy_service="s", mode="db", database=DATABASE))


def test_settings_of_the_database() -> None:
    env = proxy_environment(FLEET)
    assert (env["KONG_DATABASE"], env["KONG_PG_HOST"], env["KONG_PG_PORT"]) == (
        "postgres",
        "postgres.data.svc",
        "5432",
    )
    assert (env["KONG_PG_SSL"], env["KONG_PG_SSL_VERIFY"]) == ("on", "on")
    assert "KONG_PG_PASSWORD" not in env
    assert proxy_environment(PLAIN)["KONG_DATABASE"] == "off"
    assert [name for name in proxy_environment(PLAIN) if name.startswith("KONG_PG_")] == []


def test_the_password_comes_from_its_secret_and_the_tables_from_an_init_container() -> None:
    pod = build_proxy_deployment(FLEET)["spec"]["template"]["spec"]
    reference = {"secretKeyRef": {"name": "kong-postgres", "key": "password"}}
    for container in (pod["containers"][0], pod["initContainers"][0]):
        found = {item["name"]: item for item in container["env"]}
        assert found["KONG_PG_PASSWORD"] == {"name": "KONG_PG_PASSWORD", "valueFrom": reference}
        assert found["KONG_DATABASE"]["value"] == "postgres"
    assert pod["initContainers"][0]["command"] == ["kong", "migrations", "bootstrap"]
    assert "initContainers" not in build_proxy_deployment(PLAIN)["spec"]["template"]["spec"]
