"""The ways to push one configuration to many proxies that are compared.

Each returns how many proxies hold it, as far as it looks: ours reads every hash back, curl and the loop like KIC's do
not. All of them post the same bytes to the same servers with the same certificates.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress

import orjson

from konverge.errors import Unavailable
from konverge.kong.outcomes import Stored
from konverge.model.proxy import Proxy
from konverge.operate.connecting import GatewayPool, ProxyGateway
from pushing.world import FLEET, World

PARALLEL = 20
"""Pushes at a time, for curl and for us."""
KIC_PARALLEL = 2
"""KIC pushes to GOMAXPROCS gateways at a time; this machine has two cores."""
READS = 5
"""Times that a hash is asked for, 5 s each, before the run fails."""
HEADERS = {"Content-Type": "application/yaml"}
PATH = "/config?check_hash=1&flatten_errors=1"


async def push_ours(pool: GatewayPool, proxies: Sequence[Proxy], content: bytes, parallel: int = PARALLEL) -> int:
    """Push and read back through the client of Konverge."""
    slots, wanted = asyncio.Semaphore(parallel), hashlib.md5(content, usedforsecurity=False).hexdigest()

    async def push(proxy: Proxy) -> bool:
        async with slots:
            gateway = pool.reach(proxy)
            outcome = await gateway.push(content)
            return isinstance(outcome, Stored) and await _read_back(gateway) == wanted

    return sum(await asyncio.gather(*(push(proxy) for proxy in proxies)))


async def _read_back(gateway: ProxyGateway) -> str:
    """Return the loaded hash; on a machine that is busy with other work a server may be late, as for the engine."""
    for _ in range(READS - 1):
        with suppress(Unavailable):
            return await gateway.loaded_hash()
    return await gateway.loaded_hash()


async def push_curl(world: World) -> int:
    """Post with one ``curl --parallel``; the file is written before the clock starts, by :func:`prepare_curl`."""
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-K",
        world.directory / "curl.conf",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,  # the progress of --parallel, which --silent does not silence
        limit=2**20,
    )
    assert process.stdout is not None
    answers = (await process.stdout.read()).split()
    await process.wait()
    return sum(code == b"201" for code in answers)


def prepare_curl(world: World, content: bytes) -> None:
    """Write what curl reads."""
    (world.directory / "payload").write_bytes(content)
    directory = world.directory
    lines = [
        "parallel", "silent", f"parallel-max = {PARALLEL}", 'write-out = "%{http_code}\\n"',
        f'cacert = "{directory}/ca.pem"', f'cert = "{directory}/client.pem"', f'key = "{directory}/client.key"',
        'header = "Content-Type: application/yaml"', f'data-binary = "@{directory}/payload"',
    ]  # fmt: skip
    for proxy in world.proxies:
        lines += [f'url = "https://127.0.0.1:{proxy.admin_port}{PATH}"', 'output = "/dev/null"']
    (directory / "curl.conf").write_text("\n".join(lines) + "\n")


class KicLoop:
    """Pushes as KIC does: content, its SHA and its JSON made anew for every gateway, few at a time, no read back.

    KIC is a Go program; here its serialisation is orjson's, which is faster than Go's, and its client is ours.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.pool = GatewayPool(FLEET, world.files)

    async def push(self, document: dict[str, object]) -> int:
        """Push to all gateways."""
        slots = asyncio.Semaphore(KIC_PARALLEL)

        async def push(proxy: Proxy) -> bool:
            async with slots:
                hashlib.sha256(orjson.dumps(document)).hexdigest()
                return isinstance(await self.pool.reach(proxy).push(orjson.dumps(document)), Stored)

        return sum(await asyncio.gather(*(push(proxy) for proxy in self.world.proxies)))

    async def close(self) -> None:
        """Close its connections."""
        await self.pool.close()


async def cut(content: bytes) -> AsyncIterator[bytes]:
    """Yield a body piece by piece, as our client does."""
    for start in range(0, len(content), 64 * 1024):
        yield content[start : start + 64 * 1024]


async def gather(proxies: Sequence[Proxy], push: Callable[[Proxy], Awaitable[bool]]) -> int:
    """Push to all proxies, as many at a time as curl does; returns how many pushes came to something."""
    slots = asyncio.Semaphore(PARALLEL)

    async def take_turn(proxy: Proxy) -> bool:
        async with slots:
            return await push(proxy)

    return sum(await asyncio.gather(*(take_turn(proxy) for proxy in proxies)))
