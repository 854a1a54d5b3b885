"""Brings the stored identity into force on proxies that missed a rotation, before they are onboarded again.

Who owes it is found in two ways: an emergency rotation has closed the gate with that reason, or an onboarding was
refused in a way that a reload with the stored files sets right.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from konverge.controller.roster import Member
from konverge.controller.site import Site
from konverge.errors import KonvergeError
from konverge.kube.resources import Object
from konverge.model.condition import Outcome
from konverge.model.fleet import Fleet
from konverge.model.proxy import CONFIGURED_GATE
from konverge.operate.attesting import OWED
from konverge.operate.healing import HEALED_BY_RELOAD, heal_identities
from konverge.operate.workloads import list_pods

log = logging.getLogger(__name__)

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 600.0
"""Seconds until a proxy that a reload did not set right is reloaded again; doubled each time."""


class Mender:
    """The proxies of one fleet that owe their identity."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def start(self, fleet: Fleet) -> bool:
        """Start on whoever owes its identity; True where there was somebody."""
        await self._read_gates(fleet)
        now = time.monotonic()
        due = [member for member in self._site.roster if member.owes and not member.busy and now >= member.mend_at]
        for member in due:
            member.busy = True
            self._site.start(self._mend(fleet, member))
        return bool(due)

    def note(self, member: Member, outcome: Outcome) -> None:
        """Take what an onboarding came to: a proxy that a reload may set right owes its identity."""
        if outcome.reason in HEALED_BY_RELOAD:
            member.owes = True

    async def _read_gates(self, fleet: Fleet) -> None:
        """Read the gates of those that left the traffic or came without: others close gates too; one request."""
        unknown = [member for member in self._site.roster if not member.serving and not member.gate_known]
        if not unknown:
            return
        pods = await list_pods(self._site.kube, fleet.namespace, fleet.labels)
        gates = {pod["metadata"]["name"]: _read_gate(pod) for pod in pods}
        for member in unknown:
            member.gate_known = True
            status, reason = gates.get(member.proxy.name, ("", ""))
            member.open = member.open and status != "False"
            member.owes = member.owes or (status == "False" and reason == OWED.reason)

    async def _mend(self, fleet: Fleet, member: Member) -> None:
        site, proxy = self._site, member.proxy
        # The exponent is bounded too: a float overflows at 2^1024.
        pause = min(FIRST_PAUSE * 2.0 ** min(member.mends, 10), LONGEST_PAUSE)
        try:
            (work,) = await heal_identities(site.kube, fleet, [proxy], site.clock)
        except KonvergeError as error:
            member.mend_at = time.monotonic() + pause
            log.warning("proxy %s/%s: its identity is not in force: %s", proxy.namespace, proxy.name, error.message)
        else:
            self._conclude(member, work.owes, work.seen, work.reloads)
            member.mend_at = time.monotonic() + pause
        finally:
            member.mends += 1
            member.busy = False

    def _conclude(self, member: Member, owes: bool, seen: str, reloads: int) -> None:
        site, proxy = self._site, member.proxy
        if owes:
            log.warning("proxy %s/%s still owes its identity: %s", proxy.namespace, proxy.name, seen)
            return
        member.owes = False
        site.roster.quarantine.recovered(proxy)
        if reloads:
            log.info("proxy %s/%s: the stored identity is in force", proxy.namespace, proxy.name)
            site.states.tell_proxy(proxy, "IdentityHealed", "it was reloaded: the stored identity is in force")


def next_mend(members: Sequence[Member], now: float) -> float | None:
    """Return the seconds until somebody is to be mended again; None where nobody is, or who owes is due already."""
    times = [member.mend_at - now for member in members if member.owes and not member.busy and member.mend_at > now]
    return min(times) if times else None


def _read_gate(pod: Object) -> tuple[str, str]:
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition["type"] == CONFIGURED_GATE:
            return str(condition["status"]), str(condition.get("reason", ""))
    return "", ""
