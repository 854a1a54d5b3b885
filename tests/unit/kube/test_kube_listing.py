"""A list whose pages outlive their version starts again, takes no token of another version, and comes to an end."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from konverge.errors import Conflict, Forbidden, KonvergeError
from konverge.kube.client import EXPIRED, LIST_TRIES, PAGE, KubeClient, map_status
from konverge.kube.resources import SERVICES
from tests.unit.operate.fake_kube import FakeKube

GONE = b'{"kind":"Status","code":410,"reason":"Expired","metadata":{"continue":"inconsistent"},"message":"too old"}'


class Pages(FakeKube):
    """Answers lists from a script of (version, names, continue) and errors; notes what it is asked."""

    def __init__(self, *answers: tuple[str, str, str] | KonvergeError) -> None:
        super().__init__()
        self.answers, self.asked = list(answers), list[dict[str, str]]()

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        self.asked.append(dict(options["query"]))
        answer = self.answers.pop(0)
        if isinstance(answer, KonvergeError):
            raise answer
        version, names, token = answer
        items = [{"metadata": {"name": name, "resourceVersion": version}} for name in names]
        metadata = {"resourceVersion": version} | ({"continue": token} if token else {})
        return orjson.dumps({"items": items, "metadata": metadata})


def expired() -> KonvergeError:
    return map_status(410, GONE, "GET /services")


async def read(kube: KubeClient) -> tuple[str, str]:
    items, version = await kube.list_at(SERVICES, labels="a=b")
    return "".join(item["metadata"]["name"] for item in items), version


async def test_pages_follow_one_another() -> None:
    kube = Pages(("7", "ab", "t1"), ("7", "cd", "t2"), ("7", "e", ""))
    assert await read(kube) == ("abcde", "7")
    assert [asked.get("continue") for asked in kube.asked] == [None, "t1", "t2"]
    assert all(asked["limit"] == str(PAGE) and asked["labelSelector"] == "a=b" for asked in kube.asked)


async def test_a_list_that_expires_in_the_middle_starts_again_with_nothing_of_before() -> None:
    kube = Pages(("7", "ab", "t1"), expired(), ("9", "bc", "t2"), ("9", "d", ""))
    assert await read(kube) == ("bcd", "9")
    assert [asked.get("continue") for asked in kube.asked] == [None, "t1", None, "t2"]


async def test_a_list_that_expires_again_and_again_is_asked_for_in_one_piece() -> None:
    kube = Pages(*[("7", "ab", "t1"), expired()] * (LIST_TRIES - 1), ("9", "abc", ""))
    assert await read(kube) == ("abc", "9")
    assert kube.asked[-1] == {"labelSelector": "a=b"}


async def test_the_tries_are_bounded() -> None:
    kube = Pages(*[("7", "ab", "t1"), expired()] * LIST_TRIES)
    with pytest.raises(Conflict) as caught:
        await read(kube)
    assert caught.value.reason == EXPIRED
    assert not kube.answers


async def test_another_failure_in_the_middle_is_told_at_once() -> None:
    kube = Pages(("7", "ab", "t1"), Forbidden("no"), ("7", "cd", ""))
    with pytest.raises(Forbidden):
        await read(kube)
    assert len(kube.answers) == 1
