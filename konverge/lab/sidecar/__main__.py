"""The process ``python -m konverge.lab.sidecar``: the container ``ingress-controller`` of a legacy pod."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from konverge.errors import KonvergeError
from konverge.lab.ending import catch_signals
from konverge.lab.pod import PodEnvironment, die_with_parent
from konverge.lab.sidecar.access import connect
from konverge.lab.sidecar.running import run_controller
from konverge.lab.sidecar.settings import SidecarSettings

log = logging.getLogger("konverge.lab.sidecar")


def main() -> int:
    """Run until SIGTERM; 0 after that, 1 where the controller cannot go on, as the container would be restarted."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(_run(SidecarSettings.read(os.environ), PodEnvironment.read()))
    except* (KonvergeError, OSError) as group:
        for error in group.exceptions:
            log.error("the controller cannot go on: %s", error)
        return_code = 1
    else:
        return_code = 0
    return return_code


async def _run(settings: SidecarSettings, pod: PodEnvironment) -> None:
    stop = catch_signals()
    async with await connect(pod) as kube:
        await run_controller(kube, settings, pod, stop)


if __name__ == "__main__":
    sys.exit(main())
