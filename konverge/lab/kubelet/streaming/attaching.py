"""Attach: what a running container writes from now on. Its stdin is not connected in the lab."""

from __future__ import annotations

import asyncio
import contextlib
import json

from konverge.lab.kubelet.containers import Container
from konverge.lab.kubelet.streaming.executing import GONE, failure, success
from konverge.lab.kubelet.streaming.pipes import ExecPipes

QUEUED = 256
"""Blocks of output kept for a slow client; older ones are dropped, as nobody may slow a container down."""


async def attach(container: Container, pipes: ExecPipes) -> None:
    """Send the container's output until it ends or the client leaves."""
    log, process = container.log, container.process
    if log is None or process is None:
        status = failure(f"container {container.name} is not running")
    else:
        queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(QUEUED)
        with log.listening(queue):
            ended = asyncio.create_task(process.wait())
            await _copy(queue, pipes, ended)
        status = success()
    with contextlib.suppress(*GONE):
        await pipes.error.write(json.dumps(status).encode())
        for pipe in (pipes.stdout, pipes.stderr, pipes.error):
            if pipe is not None:
                await pipe.finish()


async def _copy(queue: asyncio.Queue[tuple[str, bytes]], pipes: ExecPipes, ended: asyncio.Task[int]) -> None:
    gone = asyncio.create_task(_until_gone(pipes))
    try:
        while True:
            arrival = asyncio.create_task(queue.get())
            await asyncio.wait({arrival, ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not arrival.done():
                arrival.cancel()
                return
            stream, data = arrival.result()
            pipe = pipes.stderr if stream == "stderr" and pipes.stderr is not None else pipes.stdout
            if pipe is not None:
                await pipe.write(data)
    except GONE:
        return
    finally:
        gone.cancel()
        ended.cancel()


async def _until_gone(pipes: ExecPipes) -> None:
    """Return when the client closes; what it types is dropped."""
    while await pipes.error.read():
        pass
