"""konverge lab: a cluster on this machine, with nothing but Python packages."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from konverge.errors import KonvergeError, UsageError
from konverge.lab.kong.cli import kong
from konverge.lab.load.cli import load
from konverge.lab.supervisor.settings import DEFAULT_NAME, LabSettings, find_home, require_name

lab_app = typer.Typer(no_args_is_help=True, help="A cluster on this machine, to try things out and to test.")


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"


class ControlPlane(StrEnum):
    """Where the API server comes from."""

    LAB = "lab"
    REAL = "real"


Name = Annotated[str, typer.Option("--name", envvar="KONVERGE_LAB_NAME", help="Name of the lab.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]


@contextlib.contextmanager
def reporting(output: Format) -> Iterator[None]:
    """Turn a failure into one triple and an exit code: 1 failed, 2 wrong words, 3 refused by a check."""
    from konverge.lab.supervisor.showing import print_failure

    try:
        yield
    except BrokenPipeError:
        raise  # of our own output, as in `konverge lab logs | head`: typer ends quietly
    except (KonvergeError, OSError) as caught:
        error = caught if isinstance(caught, KonvergeError) else _unusable(caught)
        if output is Format.JSON:
            print_json({"error": error.triple()})
        raise typer.Exit(print_failure(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _unusable(error: OSError) -> UsageError:
    name = f"{error.filename}: " if error.filename else ""
    return UsageError(
        f"{name}{error.strerror or error}", reason="StateUnusable", hint="howto/lab.md#when-it-does-not-start"
    )


def print_json(value: Any) -> None:
    """Write a value as indented JSON to standard output."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


@lab_app.command()
def up(
    name: Name = DEFAULT_NAME,
    directory: Annotated[Path | None, typer.Option("--dir", help="Where the lab keeps its files.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the lab is ready.")] = False,
    legacy: Annotated[int, typer.Option(min=0, help="Proxies of the legacy topology to start with.")] = 0,
    sample: Annotated[bool, typer.Option(help="Apply the sample applications.")] = True,
    sync_delay: Annotated[float, typer.Option(min=0, help="Seconds until kube-proxy notices a change.")] = 1.0,
    rbac: Annotated[bool, typer.Option(help="Let the API server enforce RBAC.")] = True,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Where a copy of the kubeconfig is written.")
    ] = None,
    control_plane: Annotated[
        ControlPlane, typer.Option(help="The embedded API server, or a real one from KUBEBUILDER_ASSETS.")
    ] = ControlPlane.LAB,
    output: Output = Format.TABLE,
) -> None:
    """Start a lab.

    Example: konverge lab up -d --legacy 3
    """
    with reporting(output):
        settings = build_settings(
            name=name,
            directory=directory,
            legacy=legacy,
            sample=sample,
            sync_delay=sync_delay,
            rbac=rbac,
            kubeconfig=kubeconfig,
            control_plane=control_plane.value,
        )
        check_start(settings)
        if detach:
            _up_detached(settings, output)
        else:
            raise typer.Exit(_up_foreground(settings))


def build_settings(**values: Any) -> LabSettings:
    """Return the settings; UsageError where they do not fit together. Paths become absolute."""
    require_name(values["name"])
    for key in ("directory", "kubeconfig"):
        if values[key] is not None:
            values[key] = values[key].absolute()
    return LabSettings(home=find_home(), **values)


def check_start(settings: LabSettings) -> None:
    """Refuse what cannot work before anything is started."""
    from konverge.lab.supervisor.exporting import is_ours, kubeconfig_exists
    from konverge.lab.supervisor.running import require_linux
    from konverge.lab.supervisor.states import is_held, name_in_use

    require_linux()
    if is_held(settings.place):
        raise name_in_use(settings.name)
    target = settings.kubeconfig
    if target is not None and target.exists() and not is_ours(target):
        raise kubeconfig_exists(target)
    if settings.control_plane == "real":
        from konverge.lab.realplane import require_assets

        require_assets()


def _up_foreground(settings: LabSettings) -> int:
    if settings.control_plane == "real":
        from konverge.lab.supervisor.detaching import supervisor_command

        words = supervisor_command(settings)
        os.execv(words[0], words)  # noqa: S606 - becoming the supervisor inside the network is the point
    from konverge.lab.supervisor.foreground import run_foreground

    return run_foreground(settings)


def _up_detached(settings: LabSettings, output: Format) -> None:
    from konverge.lab.supervisor.detaching import start_detached
    from konverge.lab.supervisor.showing import describe_state, next_steps

    def report(what: str, how: str) -> None:
        typer.echo(f"{what:<12} {how}", err=True)

    state = start_detached(settings, report)
    if output is Format.JSON:
        print_json(describe_state(state, running=True))
        return
    for line in next_steps(state):
        typer.echo(line)


@lab_app.command()
def down(
    name: Name = DEFAULT_NAME,
    every: Annotated[bool, typer.Option("--all", help="End every lab.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """End a lab and everything that runs in it.

    Example: konverge lab down
    """
    from konverge.lab.supervisor.states import list_states
    from konverge.lab.supervisor.stopping import stop_lab

    with reporting(output):
        names = [state.name for state, _ in list_states(find_home())] if every else [name]
        stopped = {item: stop_lab(find_home(), item) for item in names}
        if output is Format.JSON:
            print_json({"stopped": list(stopped)})
            return
        for item, running in stopped.items():
            typer.echo(f"Lab {item} {'has ended' if running else 'had been killed: its remains are removed'}.")


@lab_app.command()
def status(name: Name = DEFAULT_NAME, output: Output = Format.TABLE) -> None:
    """Show the components, pods and addresses of a lab; 1 where something of it is not ready.

    Example: konverge lab status -o json
    """
    from rich.console import Console

    from konverge.lab.supervisor.entering import enter_network
    from konverge.lab.supervisor.inspecting import inspect_lab
    from konverge.lab.supervisor.showing import render_lab
    from konverge.lab.supervisor.states import require_running

    with reporting(output):
        state = require_running(find_home(), name)
        enter_network(state)
        shown, pods = asyncio.run(inspect_lab(state))
        if output is Format.JSON:
            print_json(shown)
        else:
            console = Console()
            # A name that is folded cannot be copied: let a narrow terminal wrap whole lines instead.
            Console(width=max(console.width, 120)).print(render_lab(state, pods))
            typer.echo(f"API server {state.server}, kubeconfig {state.kubeconfig}")
        if not shown["healthy"]:
            raise typer.Exit(1)


@lab_app.command()
def logs(
    what: Annotated[str, typer.Argument(help="A component, or a pod as [namespace/]name.")] = "apiserver",
    name: Name = DEFAULT_NAME,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the log grows.")] = False,
    container: Annotated[str, typer.Option("--container", "-c", help="Container of the pod.")] = "",
) -> None:
    """Print the log of a component or a pod.

    Example: konverge lab logs kubelet -f
    """
    from konverge.lab.supervisor.entering import enter_network
    from konverge.lab.supervisor.reading import read_logs
    from konverge.lab.supervisor.states import require_running

    async def copy() -> None:
        async for chunk in read_logs(state, what, follow=follow, container=container):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()

    with reporting(Format.TABLE):
        state = require_running(find_home(), name)
        enter_network(state)
        asyncio.run(copy())


@lab_app.command()
def kubeconfig(
    name: Name = DEFAULT_NAME,
    content: Annotated[bool, typer.Option("--content", help="Print the file, not its path.")] = False,
) -> None:
    """Print the path of the kubeconfig.

    Example: export KUBECONFIG=$(konverge lab kubeconfig)
    """
    from konverge.lab.supervisor.states import require_running

    with reporting(Format.TABLE):
        state = require_running(find_home(), name)
        typer.echo(state.kubeconfig.read_text() if content else str(state.kubeconfig))


@lab_app.command(name="list")
def list_labs(output: Output = Format.TABLE) -> None:
    """List the labs of this user.

    Example: konverge lab list
    """
    from konverge.lab.supervisor.showing import describe_state
    from konverge.lab.supervisor.states import list_states

    found = list_states(find_home())
    if output is Format.JSON:
        print_json({"labs": [describe_state(state, running) for state, running in found]})
        return
    for state, running in found:
        typer.echo(f"{state.name:<20} {state.phase if running else 'killed':<10} {state.server}")


@lab_app.command(context_settings={"ignore_unknown_options": True})
def run(
    command: Annotated[list[str], typer.Argument(help="The command, after --.")],
    name: Name = DEFAULT_NAME,
) -> None:
    """Run a command against a lab: with its kubeconfig, and in its network where it has its own.

    Example: konverge lab run -- kubectl get pods -A
    """
    from konverge.lab.supervisor.entering import enter_network
    from konverge.lab.supervisor.states import require_running

    with reporting(Format.TABLE):
        state = require_running(find_home(), name)
        enter_network(state)
        os.environ["KUBECONFIG"] = str(state.kubeconfig)
        try:
            os.execvp(command[0], command)  # noqa: S606 - becoming the command is the point
        except OSError as error:
            raise UsageError(f"{command[0]}: {error.strerror}", reason="NoSuchCommand") from error


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with its failures shown as those of the others are."""

    @functools.wraps(command)
    def call(*words: Any, **options: Any) -> None:
        with reporting(Format.TABLE):
            command(*words, **options)

    return call


lab_app.command(name="kong")(guarded(kong))
lab_app.command(name="load")(guarded(load))
