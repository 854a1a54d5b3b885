"""``konverge lab kong``: one stand-in Kong on given addresses. The lead CLI mounts :func:`kong`."""

from __future__ import annotations

from typing import Annotated

import typer

from konverge.errors import UsageError
from konverge.lab.kong.flags import Flags


def kong(
    admin: Annotated[str, typer.Option(help="HOST:PORT of the Admin API")] = "127.0.0.1:8001",
    status: Annotated[str, typer.Option(help="HOST:PORT of the Status API")] = "127.0.0.1:8100",
    proxy: Annotated[str, typer.Option(help="HOST:PORT of the proxy")] = "127.0.0.1:8000",
    prefix: Annotated[str, typer.Option(help="directory for pid file, logs and configuration")] = "",
    admin_tls: Annotated[str, typer.Option(help="HOST:PORT of the Admin API with TLS and HTTP/2")] = "",
    proxy_tls: Annotated[str, typer.Option(help="HOST:PORT of the proxy with TLS and HTTP/2")] = "",
    cert: Annotated[str, typer.Option(help="server certificate of the Admin API (PEM)")] = "",
    key: Annotated[str, typer.Option(help="its key (PEM)")] = "",
    client_ca: Annotated[str, typer.Option(help="CAs of the clients (PEM); turns client certificates on")] = "",
    declarative_config: Annotated[str, typer.Option(help="configuration file to start with")] = "",
    router_flavor: Annotated[
        str, typer.Option(help="traditional_compatible or expressions")
    ] = "traditional_compatible",
    database: Annotated[str, typer.Option(help="file that plays the database; nodes share it")] = "",
    update_frequency: Annotated[
        str, typer.Option(help="seconds between two looks at the database, and at the routers")
    ] = "5",
    control: Annotated[str, typer.Option(help="HOST:PORT or socket path for fault injection")] = "",
    instant: Annotated[bool, typer.Option("--instant", help="load and route without Kong's delays")] = False,
    enterprise: Annotated[bool, typer.Option("--enterprise", help="know consumer groups as well")] = False,
) -> None:
    """Run a stand-in Kong Gateway until it gets a signal; it is DB-less unless a database is given.

    Faults: docs/reference/lab-kong.md#faults.
    """
    import asyncio

    from konverge.lab.kong.listen import BadListen
    from konverge.lab.kong.running import run_node

    flags = Flags(
        admin=admin,
        status=status,
        proxy=proxy,
        prefix=prefix,
        admin_tls=admin_tls,
        proxy_tls=proxy_tls,
        cert=cert,
        key=key,
        client_ca=client_ca,
        declarative_config=declarative_config,
        router_flavor=router_flavor,
        instant=instant,
        database=database,
        update_frequency=update_frequency,
        enterprise=enterprise,
    )
    try:
        settings = flags.settings()
    except BadListen as error:
        raise UsageError(str(error), hint="reference/lab-kong.md#running-it-alone") from error
    raise typer.Exit(asyncio.run(run_node(settings, control=control)))
