"""Pushes the bytes of one revision to one proxy and finds out what became of them.

The bytes go as ``Content-Type: application/yaml`` (JSON is YAML to Kong): then the ``configuration_hash`` is
their md5, ``check_hash=1`` answers 304, and errors come per entity. What is sent twice is the same bytes, so a
second post can store nothing that the first would not have stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from konverge.errors import KonvergeError
from konverge.kong.classifying import classify, predict_hash
from konverge.kong.failures import Delivery, LostConnection
from konverge.kong.outcomes import (
    Exiting,
    IdentityRefused,
    PushOutcome,
    Refused,
    Stored,
    Unchanged,
    Unknown,
    Unreachable,
    UnreachableCause,
)
from konverge.kong.transport import Answer, Channel

PUSH_TIMEOUT = 60.0
"""Seconds for one post: 10,000 services with plugins load in 4 s, and Kong holds its load lock for 60."""
KEPT_REFUSAL = 8 * 1024 * 1024
"""Bytes of a refusal that are read; about 20,000 wrong entities. A 201 is drained and not kept."""
CONTENT_TYPE = "application/yaml"
FLATTENED = "/config?check_hash=1&flatten_errors=1"
NESTED = "/config?check_hash=1"

ReadHash = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Attempt:
    outcome: PushOutcome
    cut: bool = False
    """A kept connection ended under the request, or led to a draining worker: a new one may fare better."""


async def push(channel: Channel, content: bytes, read_hash: ReadHash, timeout: float = PUSH_TIMEOUT) -> PushOutcome:
    """Push ``content`` and return what became of it; raises nothing but CancelledError.

    ``read_hash`` reads the hash over a fresh connection. It is asked wherever the answer leaves open whether
    the configuration is stored. A kept connection that a reload cut is replaced once.
    """
    attempt = await _post(channel, content, FLATTENED, timeout, fresh=False)
    outcome = await _settle(attempt.outcome, content, read_hash)
    if attempt.cut and not isinstance(outcome, Stored):
        attempt = await _post(channel, content, FLATTENED, timeout, fresh=True)
        outcome = await _settle(attempt.outcome, content, read_hash)
    if isinstance(outcome, Refused) and not outcome.errors and not outcome.document_errors:
        outcome = await _ask_again(channel, content, outcome, timeout)
    return outcome


async def _post(channel: Channel, content: bytes, path: str, timeout: float, *, fresh: bool) -> _Attempt:
    try:
        answer = await channel.send(
            "POST",
            path,
            content=content,
            headers={"Content-Type": CONTENT_TYPE},
            timeout=timeout,
            keep=KEPT_REFUSAL,
            fresh=fresh,
            drain=201,
        )
    except LostConnection as lost:
        cut = lost.reused and lost.cause in (UnreachableCause.CLOSED, UnreachableCause.RESET)
        return _Attempt(_read_loss(lost), cut)
    outcome = await _classify(answer, content)
    return _Attempt(outcome, cut=answer.reused and isinstance(outcome, Exiting))


async def _classify(answer: Answer, content: bytes) -> PushOutcome:
    """Classify off the loop where a refusal may mean parsing a large document."""
    if answer.status == 400:
        return await asyncio.to_thread(
            classify, answer.status, answer.headers, answer.body, content=content, complete=answer.complete
        )
    return classify(answer.status, answer.headers, answer.body, content=content, complete=answer.complete)


def _read_loss(lost: LostConnection) -> PushOutcome:
    if lost.alert is not None:
        return IdentityRefused(lost.alert, lost.message)
    if lost.delivery is Delivery.WHOLE:
        return Unknown(f"No answer ({lost.cause.value}): {lost.message}")
    return Unreachable(lost.cause, lost.message)


async def _settle(outcome: PushOutcome, content: bytes, read_hash: ReadHash) -> PushOutcome:
    """Read the hash back where the answer leaves it open; ours means stored."""
    if not isinstance(outcome, (Unknown, Exiting)):
        return outcome
    try:
        observed = await read_hash()
    except KonvergeError:
        return outcome
    if observed == predict_hash(content):
        return Stored(observed, read_back=True)
    return replace(outcome, observed=observed)


async def _ask_again(channel: Channel, content: bytes, refused: Refused, timeout: float) -> PushOutcome:
    """Post once more without flattening: references to what is missing are named only there."""
    nested = (await _post(channel, content, NESTED, timeout, fresh=False)).outcome
    return nested if isinstance(nested, (Refused, Stored, Unchanged)) else refused
