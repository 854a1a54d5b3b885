"""How a lab is shown: tables for people, dictionaries for programs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table

from konverge.errors import DOCS, CheckRefused, KonvergeError, UsageError
from konverge.kube.resources import Object
from konverge.lab.controllers.conditions import pod_is_ready
from konverge.lab.supervisor.settings import DEFAULT_NAME
from konverge.lab.supervisor.states import LabState

FAILED, USAGE, REFUSED = 1, 2, 3
"""Exit codes: it did not work; wrong words; a check says no."""


def exit_code_of(error: KonvergeError) -> int:
    """Return the exit code of a failure."""
    if isinstance(error, UsageError):
        return USAGE
    return REFUSED if isinstance(error, CheckRefused) else FAILED


def print_failure(error: KonvergeError) -> int:
    """Show reason, message and hint on standard error and return the exit code."""
    console = Console(stderr=True)
    console.print(f"{error.reason}: {error.message}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"  see {DOCS}{error.hint}", style="dim", markup=False, highlight=False)
    return exit_code_of(error)


def next_steps(state: LabState) -> list[str]:
    """Return what a person does next."""
    name = "" if state.name == DEFAULT_NAME else f" --name {state.name}"
    steps = [f"Lab {state.name} is ready at {state.server}"]
    if state.private:
        steps.append(f"  konverge lab run{name} -- kubectl get pods -A")
    else:
        steps.append(f"  export KUBECONFIG={state.kubeconfig}")
        steps.append("  kubectl get pods -A")
    return [*steps, f"  konverge lab status{name}", f"  konverge lab down{name}"]


def render_lab(state: LabState, pods: Sequence[Object]) -> Group:
    """Return the tables of components and pods."""
    components = _table(f"lab {state.name} ({state.phase})", ("component", "pid", "state", "restarts"))
    for item in state.components:
        shown = "ready" if item.ready else "not ready"
        components.add_row(item.name, str(item.pid or "-"), shown, str(item.restarts))
    table = _table("pods", ("namespace", "pod", "ready", "status", "restarts", "ip"))
    for pod in map(describe_pod, sorted(pods, key=_order)):
        ready = f"{pod['ready_containers']}/{pod['containers']}"
        table.add_row(pod["namespace"], pod["name"], ready, pod["status"], str(pod["restarts"]), pod["ip"] or "-")
    return Group(components, table)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column == "pod")
    return table


def describe_pod(pod: Object) -> dict[str, Any]:
    """Return what is shown of a pod."""
    status, metadata = pod.get("status") or {}, pod["metadata"]
    statuses = status.get("containerStatuses") or []
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "ready": pod_is_ready(pod),
        "containers": len(pod["spec"].get("containers") or ()),
        "ready_containers": sum(bool(item.get("ready")) for item in statuses),
        "status": summarise(pod),
        "restarts": sum(int(item.get("restartCount", 0)) for item in statuses),
        "ip": status.get("podIP"),
        "node": pod["spec"].get("nodeName"),
    }


def summarise(pod: Object) -> str:
    """Return one word for the pod's state, as kubectl's STATUS column does."""
    status = pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for item in status.get("containerStatuses") or ():
        state = item.get("state") or {}
        waiting = (state.get("waiting") or {}).get("reason") or (state.get("terminated") or {}).get("reason")
        if waiting:
            return str(waiting)
    return str(status.get("phase", "Pending"))


def describe_state(state: LabState, running: bool) -> dict[str, Any]:
    """Return what programs are told about a lab without asking it."""
    return {
        **state.model_dump(mode="json", exclude={"nonce", "private"}),
        "running": running,
        "uptime_seconds": round(time.time() - state.started, 1) if running else None,
    }


def _order(pod: Object) -> tuple[str, str]:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]
