"""A tunnel between two connections, for WebSocket and whatever else was upgraded."""

from __future__ import annotations

import asyncio

from konverge.lab.kong.wire.stream import ByteStream, StreamClosed

PIECE = 64 * 1024


async def tunnel(left: ByteStream, right: ByteStream) -> None:
    """Copy both ways until one side ends."""
    tasks = [asyncio.ensure_future(_copy(left, right)), asyncio.ensure_future(_copy(right, left))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        right.close()


async def _copy(source: ByteStream, sink: ByteStream) -> None:
    try:
        while source.buffer or await source.wait_data():
            sink.write(source.take(PIECE))
            await sink.drain()
    except StreamClosed:
        return
