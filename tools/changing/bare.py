"""A town whose gateways are bare and all in one process (``changing.serving``)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.chaos.town import Gateway, Process, Town

START_SECONDS = 60.0


class BareTown(Town):
    """A town that runs no Kong stand-ins; :attr:`bare` is the process of its gateways once they were added."""

    bare: Process | None = None

    async def add_bare(self, count: int, load: float = 0.0) -> None:
        """Start the gateways, which take ``load`` seconds to load, and tell the API of them."""
        for number in range(count):
            ip = f"127.{self._claim.number}.{64 + number // 250}.{number % 250 + 2}"
            gateway = Gateway(self.directory, f"kong-{number}", ip)
            self.gateways.append(gateway)
            await self.introduce(gateway)
        addresses = [gateway.ip for gateway in self.gateways]
        words = ["-m", "changing.serving", str(self.gateways[0].directory), str(load), *addresses]
        self.bare = Process(self.directory / "bare.log", *words)
        await self.bare.start(stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent)
        assert self.bare.running is not None
        assert self.bare.running.stdout is not None
        await asyncio.wait_for(self.bare.running.stdout.readline(), START_SECONDS)
        for gateway in self.gateways:
            gateway.process.running = self.bare.running

    async def close(self) -> None:
        """End everything."""
        if self.bare is not None:
            await self.bare.end()
        await super().close()
