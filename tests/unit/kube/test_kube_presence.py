"""Who waits for a kind is told although the server, or what is in between, does not answer as it should."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from virtual_time import now, run_virtually

from konverge.errors import Forbidden, KonvergeError, Unavailable
from konverge.kube.client import KubeClient
from konverge.kube.presence import PERIOD, UNAGGREGATED_PERIOD, Presence
from konverge.kube.resources import PROXY_FLEETS

SERVED = {
    "kind": "APIGroupDiscoveryList",
    "items": [
        {
            "metadata": {"name": PROXY_FLEETS.group},
            "versions": [{"version": PROXY_FLEETS.version, "resources": [{"resource": PROXY_FLEETS.plural}]}],
        }
    ],
}


class Answering(KubeClient):
    """Gives the answers of a list; the last one stays."""

    def __init__(self, *answers: bytes | KonvergeError) -> None:
        self.answers = list(answers)

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, KonvergeError):
            raise answer
        return answer


async def wait(*answers: bytes | KonvergeError) -> float:
    presence = Presence(Answering(*answers))
    await asyncio.gather(*(asyncio.wait_for(presence.wait_served(PROXY_FLEETS), 1000 * PERIOD) for _ in range(3)))
    return now()


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>sign in</html>",
        b"",
        b"[]",
        b'"text"',
        b'{"kind": "APIGroupDiscoveryList", "items": [{"versions": [{"resources": [{}]}]}]}',
        b'{"kind": "APIGroupDiscoveryList", "items": 7}',
        Forbidden("no"),
    ],
)
def test_what_is_no_discovery_document_lets_each_waiter_try_for_itself(answer: bytes | KonvergeError) -> None:
    took = run_virtually(wait(answer))
    assert UNAGGREGATED_PERIOD - 0.2 * PERIOD <= took <= UNAGGREGATED_PERIOD + 0.2 * PERIOD


def test_a_server_that_does_not_answer_for_a_while_is_asked_again() -> None:
    took = run_virtually(wait(Unavailable("nobody answers"), Unavailable("nobody answers"), orjson.dumps(SERVED)))
    assert 2.7 * PERIOD <= took <= 3.3 * PERIOD
