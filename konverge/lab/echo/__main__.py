"""The process ``python -m konverge.lab.echo``: listens on $PORT (8080) of its pod until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from dataclasses import replace

from konverge.lab.echo.app import Echo
from konverge.lab.echo.serving import EchoSettings, serve
from konverge.lab.pod import PodEnvironment, die_with_parent


def main() -> int:
    """Serve until SIGTERM or SIGINT; 0 after a graceful end, 1 where the port cannot be bound."""
    die_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    pod = PodEnvironment.read()
    if not pod.name:
        # On a real cluster the host name is the pod's.
        pod = replace(pod, name=socket.gethostname())
    try:
        asyncio.run(serve(Echo(pod), EchoSettings.read(os.environ), pod))
    except OSError as error:
        logging.getLogger("konverge.lab.echo").error("The echo application cannot listen: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
