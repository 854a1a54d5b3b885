"""Sets the ProxyFleet from a file, as the chart mounts one: a chart cannot bring a CRD and its object at once."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import yaml

from konverge.errors import Invalid, KonvergeError, NotFound, UsageError
from konverge.kube.client import KubeClient
from konverge.model.fleet import FleetSpec
from konverge.operate.fleets import apply_fleet
from konverge.operate.validating import validate_spec

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


def read_fleet_file(path: Path) -> tuple[str, FleetSpec]:
    """Return name and spec of the ProxyFleet in a file; UsageError lists what is wrong, unknown fields included."""
    try:
        body = yaml.safe_load(path.read_text())
        return str(body["metadata"]["name"]), validate_spec(body, "ProxyFleet")
    except Invalid as error:
        raise _unusable(path, error.message) from error
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, str(error) or type(error).__name__) from error


def _unusable(path: Path, cause: str) -> UsageError:
    return UsageError(
        f"The fleet file {path} cannot be used: {' '.join(cause.split())}",
        reason="BadFleetFile",
        hint="reference/errors.md#invalid-fleet",
    )


async def declare_forever(kube: KubeClient, path: Path, namespace: str) -> None:
    """Apply the file, and go on trying while the CRDs are missing or the API server does not answer."""
    name, spec = await asyncio.to_thread(read_fleet_file, path)
    while True:
        try:
            await apply_fleet(kube, name, namespace, spec)
            return
        except NotFound:
            log.warning("ProxyFleet %s/%s waits for the CRDs of konverge.dev", namespace, name)
        except KonvergeError as error:
            log.warning("ProxyFleet %s/%s: %s", namespace, name, error.message)
        await asyncio.sleep(RETRY_SECONDS)
