"""Puts new identity files into force on proxies: wait for the projection, reload, prove by a handshake.

``kong reload`` returns 0.7 to 2.1 s before the new files are in force, and a reload before the kubelet has
projected them loads the old ones: neither its exit code nor time proves anything, only a handshake does.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from konverge.decide.objects import IDENTITY_PATH
from konverge.errors import KonvergeError, VerificationFailed
from konverge.kube import streaming
from konverge.kube.client import KubeClient
from konverge.model.proxy import Proxy
from konverge.pki.files import CERTIFICATE_FILE, PROXY_BUNDLE_FILE, IdentityFiles

PROXY_CONTAINER = "proxy"
PROJECTION_SECONDS = 180.0
"""The kubelet projects a changed Secret within its sync period and cache delay, 60 to 90 s by default."""
FORCE_SECONDS = 6.0
"""A reload is in force at most 2.1 s after it returned; three times that and it is repeated."""
PAUSE = 0.25

Proof = Callable[[Proxy], Awaitable[str]]
"""Makes a handshake; returns "" where the new files are in force, else what was seen instead."""


@dataclass(frozen=True, slots=True)
class Reload:
    """How often a proxy was reloaded until the proof held."""

    proxy: str
    reloads: int


async def distribute(
    kube: KubeClient, proxies: Sequence[Proxy], files: IdentityFiles, proof: Proof, *, batch: int = 1
) -> list[Reload]:
    """Bring files into force proxy by proxy, ``batch`` at a time; VerificationFailed names the rest."""
    slots = asyncio.Semaphore(batch)

    async def follow(proxy: Proxy) -> Reload:
        async with slots:
            return await _bring_into_force(kube, proxy, files, proof)

    results = await asyncio.gather(*(follow(proxy) for proxy in proxies), return_exceptions=True)
    failures = [result for result in results if isinstance(result, KonvergeError)]
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, KonvergeError):
            raise result
    if failures:
        raise VerificationFailed(
            "; ".join(failure.message for failure in failures),
            reason="NotInForce",
            hint="reference/errors.md#not-in-force",
        )
    return [result for result in results if isinstance(result, Reload)]


async def _bring_into_force(kube: KubeClient, proxy: Proxy, files: IdentityFiles, proof: Proof) -> Reload:
    deadline = time.monotonic() + PROJECTION_SECONDS
    reloads, seen = 0, await proof(proxy)
    while seen:
        await _await_projection(kube, proxy, files, deadline)
        await reload_proxy(kube, proxy)
        reloads += 1
        seen = await _await_proof(proof, proxy)
        if seen and time.monotonic() > deadline:
            raise VerificationFailed(
                f"proxy {proxy.name}: after {reloads} reloads still: {seen}", reason="NotInForce"
            )
    return Reload(proxy.name, reloads)


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
    wanted = {name: files.data[name] for name in (CERTIFICATE_FILE, PROXY_BUNDLE_FILE)}
    while True:
        shown = [await _read_file(kube, proxy, name) for name in wanted]
        if shown == list(wanted.values()):
            return
        if time.monotonic() > deadline:
            raise VerificationFailed(
                f"proxy {proxy.name}: the kubelet has not projected the new files within {PROJECTION_SECONDS:.0f} s",
                reason="NotProjected",
                hint="reference/errors.md#not-projected",
            )
        await asyncio.sleep(PAUSE * random.uniform(1.0, 2.0))


async def _read_file(kube: KubeClient, proxy: Proxy, name: str) -> bytes:
    command = ["cat", f"{IDENTITY_PATH}/{name}"]
    return (await streaming.exec(kube, proxy.name, proxy.namespace, PROXY_CONTAINER, command)).stdout


async def _await_proof(proof: Proof, proxy: Proxy) -> str:
    """Repeat the proof until it holds on two handshakes in a row, or the time of one reload is over."""
    deadline = time.monotonic() + FORCE_SECONDS
    held, seen = 0, "nothing yet"
    while held < 2:
        seen = await proof(proxy)
        held = 0 if seen else held + 1
        if seen and time.monotonic() > deadline:
            return seen
        await asyncio.sleep(PAUSE)
    return ""
