"""Waits until the controller shows the certificate that is stored for it: the one that acts says so on its Lease.

Its identity reaches it by a watch, and the old one must be out of its hands before anybody refuses it. Who acts next
reads the stored identity first, so nobody has to be waited for where nobody acts.
"""

from __future__ import annotations

import asyncio
import time

from konverge.errors import VerificationFailed
from konverge.kube.client import KubeClient
from konverge.kube.resources import LEASES, Object
from konverge.model.fleet import Fleet

SERIAL_ANNOTATION = "konverge.dev/controller-serial"
"""On the controller's Lease: the serial of the client certificate that its holder shows to proxies."""
SHOWN_SECONDS = 60.0
PAUSE = 0.2


async def announce_serial(kube: KubeClient, fleet: Fleet, serial: str) -> None:
    """Say on the controller's Lease which certificate is shown from now on; nothing happens where it says so."""
    lease = await kube.find(LEASES, fleet.controller, fleet.namespace)
    if lease is None or _read_serial(lease) == serial:
        return
    change = {"metadata": {"annotations": {SERIAL_ANNOTATION: serial}}}
    await kube.patch(LEASES, fleet.controller, change, fleet.namespace)


async def wait_until_shown(kube: KubeClient, fleet: Fleet, serial: str) -> None:
    """Wait until the acting controller shows a certificate; VerificationFailed where it goes on with another one.

    Nobody acts where no lease is held, or its holder does not renew it for as long as it lasts; that is judged by
    when we saw it change, so clocks of different machines need not agree.
    """
    deadline = time.monotonic() + SHOWN_SECONDS
    renewed, since = "", 0.0
    while True:
        lease = await kube.find(LEASES, fleet.controller, fleet.namespace)
        if lease is None or not _read_holder(lease) or _read_serial(lease) == serial:
            return
        now, spec = time.monotonic(), lease["spec"]
        if spec.get("renewTime") != renewed:
            renewed, since = spec.get("renewTime"), now
        if now - since > float(spec.get("leaseDurationSeconds") or 15):
            return
        if now > deadline:
            raise _behind(lease, serial)
        await asyncio.sleep(PAUSE)


def _behind(lease: Object, serial: str) -> VerificationFailed:
    shown = _read_serial(lease)
    return VerificationFailed(
        f"The controller {_read_holder(lease)} does not show its new certificate, serial {serial}, after"
        f" {SHOWN_SECONDS:.0f} s; it shows {shown or 'nobody knows which'}",
        reason="ControllerBehind",
        hint="reference/errors.md#controller-behind",
    )


def _read_holder(lease: Object) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _read_serial(lease: Object) -> str:
    return str((lease["metadata"].get("annotations") or {}).get(SERIAL_ANNOTATION, ""))
