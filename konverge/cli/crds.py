"""konverge crds: print, write or check the CustomResourceDefinitions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from konverge.cli.output import FAILED
from konverge.kube.crds import build_crds
from konverge.kube.resources import Object

HEADER = "# Generated from konverge/model by `make crds`; do not edit.\n"


def crds(
    write: Annotated[
        Path | None, typer.Option("--write", help="Write one file per kind into this directory.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Compare with this directory; 1 when different.")
    ] = None,
) -> None:
    """Print the CRDs of konverge.dev as YAML.

    Example: konverge crds | kubectl apply --server-side -f -
    """
    files = {f"{crd['metadata']['name']}.yaml": HEADER + _dump(crd) for crd in build_crds()}
    if write is not None:
        write.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (write / name).write_text(text)
    elif check is not None:
        stale = [name for name, text in files.items() if _read(check / name) != text]
        if stale:
            typer.echo(f"stale: {', '.join(stale)}; run: make crds", err=True)
            raise typer.Exit(FAILED)
    else:
        typer.echo("---\n".join(_dump(crd) for crd in build_crds()), nl=False)


def _dump(body: Object) -> str:
    return yaml.safe_dump(body, sort_keys=False, width=110)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
