"""Runs work side by side to its end: nobody is left running when somebody fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

Result = TypeVar("Result")


async def gather_all(work: Iterable[Awaitable[Result]]) -> list[Result]:
    """Wait for all of it, then return the results in order, or raise the first failure."""
    results = await asyncio.gather(*work, return_exceptions=True)
    done: list[Result] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        done.append(result)
    return done
