"""Work that is abandoned before its first step leaves nothing behind, not even a warning."""

from __future__ import annotations

import gc
import warnings
from types import SimpleNamespace
from typing import Any

from konverge.controller.site import Site


async def test_work_that_never_began_is_abandoned_without_a_warning() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    parts: dict[str, Any] = dict.fromkeys(("kube", "clock", "may_act", "aim", "roster", "reach", "states"))
    site = Site(sources=SimpleNamespace(wake=lambda: None), **parts)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        task = site.start(work())
        await site.abandon()
        gc.collect()
    assert task.cancelled()
    assert begun == []
    assert [str(warning.message) for warning in seen] == []
