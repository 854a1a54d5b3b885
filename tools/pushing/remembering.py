"""Pushes a file to the servers named on standard input, twice, and prints the peak memory that this took.

Reads ``{"directory": ..., "proxies": [...]}``; the directory holds ``payload``, ``ca.pem``, ``client.pem`` and
``client.key``. Prints JSON: MiB after a push to the first server, at the peak, and the difference, in all and for
each further server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from konverge.model.proxy import Proxy
from konverge.operate.connecting import GatewayPool
from konverge.pki.files import CONTROLLER_BUNDLE_FILE, read_files
from pushing.contenders import push_ours
from pushing.world import FLEET


def read_peak() -> float:
    """Return the most memory that this process ever had, in MiB; getrusage would count what the parent had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("the peak of memory is known on Linux only")


async def main() -> None:
    """Push twice: over new connections, then over kept ones."""
    spec = json.loads(sys.stdin.read())
    directory = Path(spec["directory"])
    names = {"tls.crt": "client.pem", "tls.key": "client.key", CONTROLLER_BUNDLE_FILE: "ca.pem"}
    data = {key: (directory / name).read_bytes() for key, name in names.items()}
    files = read_files(data, datetime.now(UTC), CONTROLLER_BUNDLE_FILE)
    proxies = [Proxy.model_validate(entry) for entry in spec["proxies"]]
    content = (directory / "payload").read_bytes()
    async with GatewayPool(FLEET, files) as pool:
        await push_ours(pool, proxies[:1], content)
        start = read_peak()
        for _ in range(2):
            assert await push_ours(pool, proxies, content) == len(proxies)
        peak = read_peak()
    print(
        json.dumps(
            {
                "start_mib": start,
                "peak_mib": peak,
                "added_mib": peak - start,
                "each_mib": (peak - start) / max(len(proxies) - 1, 1),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
