"""Keeps the cyclic garbage collector out of bulk work.

A rendering makes millions of objects that all live on and hold no cycles. Collecting them over and over while they
are made costs more than half of the time at 10,000 routes, and makes the whole more than linear.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

BULK = 1000
"""Touched keys from which on a rendering counts as bulk work."""


@contextmanager
def pause_collection(bulk: bool = True) -> Iterator[None]:
    """Switch the collector off for the duration of the block, where it is on and the work is bulky."""
    if not bulk or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
