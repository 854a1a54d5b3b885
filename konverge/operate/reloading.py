"""Puts new identity files into force on proxies: wait for the projection, reload, prove by a handshake.

``kong reload`` returns 0.7 to 2.1 s before the new files are in force, and a reload before the kubelet has
projected them loads the old ones: neither its exit code nor time proves anything, only a handshake does. The next
proxies are touched when those before are ready again and route (:mod:`konverge.operate.returning`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from konverge.decide.objects import IDENTITY_PATH
from konverge.errors import KonvergeError, VerificationFailed
from konverge.kube import streaming
from konverge.kube.client import KubeClient
from konverge.model.proxy import Proxy
from konverge.model.rotation import ProxyWork
from konverge.operate.proving import SILENT_SECONDS, Proof, Seen
from konverge.operate.returning import Room, Standing, find_standing, wait_until_back
from konverge.pki.files import CERTIFICATE_FILE, PROXY_BUNDLE_FILE, IdentityFiles

PROXY_CONTAINER = "proxy"
PROJECTION_SECONDS = 180.0
"""The kubelet projects a changed Secret within its sync period and cache delay, 60 to 90 s by default."""
FORCE_SECONDS = 6.0
"""A reload is in force at most 2.1 s after it returned; three times that and it is repeated."""
ABSENT_TRIES = 3
ABSENT_PAUSE = 1.0
"""Seconds between two tries: a proxy that none of them meets is out of reach and owes its proof."""
PAUSE = 0.25

Progress = Callable[[ProxyWork], None]


@dataclass(frozen=True, slots=True)
class Distribution:
    """What is brought into force on proxies: the stored files, and the proof that they are.

    ``stragglers``: a proxy that answers but does not take the files is reported as owing instead of raised; an
    emergency goes on without it.
    """

    kube: KubeClient
    files: IdentityFiles
    proof: Proof
    batch: int = 1
    """Proxies at the same time, after the first one."""
    first_alone: bool = True
    """Whether the first proxy that answers is worked on alone; needless where none carries traffic."""
    spare: int = 0
    """Proxies that may be missed by the traffic before no further one is touched."""
    token: str = field(default="", repr=False)
    """Opens the marker route of the data path, see :func:`konverge.operate.connecting.probe_token`."""
    stragglers: bool = False
    on_progress: Progress | None = None


async def distribute(proxies: Sequence[Proxy], what: Distribution) -> list[ProxyWork]:
    """Bring files into force: on one proxy first, which proves that they work there, then on a batch at a time.

    One that is out of reach proves nothing, owes its proof and holds nobody up. VerificationFailed names those that
    answer and do not take the files, and those that were reloaded and do not come back; the batch that they are in is
    the last. Nothing of this is stored: whoever begins anew finds in force what is in force, and goes on there.
    """
    works, left, room = list[ProxyWork](), list(proxies), Room(len(proxies), what.spare)
    alone = what.first_alone
    while left:
        batch, left = _split(left, 1 if alone else what.batch)
        done = await _work_on_batch(batch, what, room, untouched=len(left))
        works += done
        alone = alone and not what.stragglers and all(work.owes for work in done)
    return works


def _split(proxies: list[Proxy], size: int) -> tuple[list[Proxy], list[Proxy]]:
    return proxies[:size], proxies[size:]


async def _work_on_batch(
    batch: Sequence[Proxy], what: Distribution, room: Room, *, untouched: int
) -> list[ProxyWork]:
    """Work on proxies side by side to the end of all; raise where one of them failed."""

    async def follow(proxy: Proxy) -> ProxyWork:
        work = await _work_on(proxy, what, room)
        if what.on_progress is not None:
            what.on_progress(work)
        return work

    results = await asyncio.gather(*(follow(proxy) for proxy in batch), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, KonvergeError):
            raise result
    faults = [result.message for result in results if isinstance(result, KonvergeError)]
    if faults:
        faults += [f"{untouched} others were not touched"] if untouched else []
        raise VerificationFailed("; ".join(faults), reason="NotInForce", hint="reference/errors.md#not-in-force")
    return [result for result in results if isinstance(result, ProxyWork)]


async def _work_on(proxy: Proxy, what: Distribution, room: Room) -> ProxyWork:
    started = time.monotonic()
    seen, reloads = await find_out(what.proof, proxy), 0
    try:
        if not seen.holds and seen.reachable:
            room.require(proxy)
            before = await find_standing(what.kube, proxy, what.token)
            seen, reloads = await _bring_into_force(proxy, what)
            if seen.holds:
                await _await_return(proxy, what, before, room)
            elif before.serving:
                room.miss(proxy)
    except KonvergeError as error:
        if error.reason == "NotReadyAgain" and not what.stragglers:
            raise
        seen = await find_out(what.proof, proxy)
        if seen.reachable and not seen.holds:
            if not what.stragglers:
                raise
            seen = Seen(error.message)
    return ProxyWork(
        proxy=proxy.name,
        reloads=reloads,
        seconds=round(time.monotonic() - started, 2),
        owes=not seen.holds,
        seen=seen.fault,
    )


async def _await_return(proxy: Proxy, what: Distribution, before: Standing, room: Room) -> None:
    try:
        await wait_until_back(what.kube, proxy, before, what.token)
    except KonvergeError:
        room.miss(proxy)
        raise


async def find_out(proof: Proof, proxy: Proxy) -> Seen:
    """Make a proof; a proxy that does not answer is asked again before it counts as out of reach."""
    started = time.monotonic()
    seen = await proof(proxy)
    for _ in range(ABSENT_TRIES - 1):
        if seen.holds or seen.reachable or time.monotonic() - started > SILENT_SECONDS:
            break
        await asyncio.sleep(ABSENT_PAUSE)
        seen = await proof(proxy)
    return seen


async def _bring_into_force(proxy: Proxy, what: Distribution) -> tuple[Seen, int]:
    deadline, reloads = time.monotonic() + PROJECTION_SECONDS, 0
    while True:
        await _await_projection(what.kube, proxy, what.files, deadline)
        await reload_proxy(what.kube, proxy)
        reloads += 1
        seen = await _await_proof(what.proof, proxy)
        if seen.holds or not seen.reachable:
            return seen, reloads
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"proxy {proxy.name}: after {reloads} reloads still: {seen.fault}", reason="NotInForce"
            )


async def reload_proxy(kube: KubeClient, proxy: Proxy) -> None:
    """Run ``kong reload`` in the pod; it tests the files first, and a refusal leaves the old ones in force."""
    result = await streaming.exec(kube, proxy.name, proxy.namespace, PROXY_CONTAINER, ["kong", "reload"])
    if result.code != 0:
        text = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
        raise VerificationFailed(
            f"proxy {proxy.name}: kong reload ended with {result.code}: {text[-300:]}",
            reason="ReloadRefused",
            hint="reference/errors.md#reload-refused",
        )


async def _await_projection(kube: KubeClient, proxy: Proxy, files: IdentityFiles, deadline: float) -> None:
    """Wait until the pod's files are those that were stored; public parts only are compared."""
    names = (CERTIFICATE_FILE, PROXY_BUNDLE_FILE)
    wanted = b"".join(files.data[name] for name in names)
    command = ["cat", *(f"{IDENTITY_PATH}/{name}" for name in names)]
    while True:
        shown = await streaming.exec(kube, proxy.name, proxy.namespace, PROXY_CONTAINER, command)
        if shown.stdout == wanted:
            return
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"proxy {proxy.name}: the kubelet has not projected the new files within {PROJECTION_SECONDS:.0f} s",
                reason="NotProjected",
                hint="reference/errors.md#not-projected",
            )
        await asyncio.sleep(PAUSE * random.uniform(1.0, 2.0))


async def _await_proof(proof: Proof, proxy: Proxy) -> Seen:
    """Repeat the proof until it holds on two handshakes in a row, or the time of one reload is over."""
    deadline = time.monotonic() + FORCE_SECONDS
    held, seen = 0, Seen("nothing yet")
    while held < 2:
        seen = await proof(proxy)
        held = held + 1 if seen.holds else 0
        if not seen.holds and time.monotonic() > deadline:
            return seen
        await asyncio.sleep(PAUSE)
    return seen
