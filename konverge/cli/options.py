"""Options that many commands share."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from pydantic import ValidationError

from konverge.cli.output import Format
from konverge.model.target import Target

Kubeconfig = Annotated[
    str | None,
    typer.Option("--kubeconfig", envvar="KUBECONFIG", help="Kubeconfig file.", show_default="~/.kube/config"),
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="KONVERGE_NAMESPACE", help="Namespace of the fleet.")
]
FleetName = Annotated[str, typer.Option("--fleet", envvar="KONVERGE_FLEET", help="Name of the ProxyFleet.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]


def build_target(fleet: str, namespace: str, kubeconfig: str | None, context: str | None) -> Target:
    """Return the target of a flow: paths are made absolute, since it may run in another directory.

    Raises typer.BadParameter for a name that no fleet can have.
    """
    path = os.path.abspath(kubeconfig) if kubeconfig else None
    try:
        return Target(fleet=fleet, namespace=namespace, kubeconfig=path, context=context)
    except ValidationError:
        raise typer.BadParameter(f"{fleet!r} is no name of a fleet: 1 to 50 characters") from None
