"""The supervisor as a process: started by ``konverge lab up``, in the background or in a private network."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys

from konverge.errors import KonvergeError
from konverge.lab.supervisor.detaching import send
from konverge.lab.supervisor.foreground import run_foreground
from konverge.lab.supervisor.running import Lab
from konverge.lab.supervisor.serving import serve_lab, show_nothing
from konverge.lab.supervisor.settings import LabSettings

log = logging.getLogger(__name__)


def main() -> int:
    """Run one lab; 0 after a signal, 1 where it does not come up."""
    parser = argparse.ArgumentParser(prog="konverge.lab.supervisor", description=__doc__)
    parser.add_argument("--settings", required=True, help="LabSettings as JSON")
    parser.add_argument("--progress-fd", type=int, default=-1, help="where progress is written as JSON lines")
    parser.add_argument("--detach", action="store_true", help="fork once more and leave the parent")
    found = parser.parse_args()
    settings = LabSettings.model_validate_json(found.settings)
    if not found.detach:
        return run_foreground(settings)
    if os.fork():
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return run_detached(settings, found.progress_fd)


def run_detached(settings: LabSettings, handle: int) -> int:
    """Run a lab in this process and tell a waiting command how its start goes."""
    os.set_inheritable(handle, False)

    def report(what: str, how: str) -> None:
        log.info("%s: %s", what, how)
        send(handle, {"what": what, "how": how})

    def on_ready(lab: Lab) -> None:
        send(handle, {"ready": lab.state.model_dump(mode="json")})
        with contextlib.suppress(OSError):
            os.close(handle)

    try:
        asyncio.run(serve_lab(settings, report, on_ready, show_nothing))
    except KonvergeError as error:
        log.error("%s: %s", error.reason, error.message)
        send(handle, {"error": error.triple(), "type": type(error).__name__})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
