"""A stand-in Kubernetes API server: one asyncio process, objects in memory, the real API's manners.

async with ApiServer(Settings(directory=Path("/tmp/lab"))) as server:
    print(server.url, server.kubeconfig)
"""

from konverge.lab.apiserver.faults import Fault
from konverge.lab.apiserver.serving import ApiServer
from konverge.lab.apiserver.state import Settings

__all__ = ["ApiServer", "Fault", "Settings"]
