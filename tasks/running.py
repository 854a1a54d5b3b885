"""What every task shares: the retry rule, the connection, and how failures are shown."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from konverge.errors import RetryableError
from konverge.kube.client import KubeClient
from konverge.model.target import Target

RETRIES = 3
RETRY_DELAYS = [1.0, 4.0, 10.0]
"""Seconds before each repeat; a verb is idempotent, so a repeat does only what is still missing."""


async def is_retryable(_task: Any, _run: Any, state: Any) -> bool:
    """Tell Prefect whether a failed task is worth repeating: only where the error tree says so."""
    try:
        await state.result()
    except RetryableError:
        return True
    except Exception:
        return False
    return False


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[KubeClient]:
    """Connect to the cluster of a target for the length of one task."""
    async with await KubeClient.connect(target.kubeconfig, target.context) as kube:
        yield kube


def logger() -> logging.Logger | logging.LoggerAdapter[Any]:
    """Return the run's logger, or the module's outside a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger("konverge.tasks")
