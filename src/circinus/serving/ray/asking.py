"""Calls that block, out of the way of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from circinus.errors import ServingError

_T = TypeVar("_T")

LOOK_S = 12.0
"""How long a look at a cluster may take; a little more than it waits itself for what it asks."""
CHANGE_S = 60.0
"""How long connecting may take, or telling a cluster what to run."""
START_S = 120.0
"""How long it may take to start Ray Serve."""
# Their own: a cluster that is silent must not hold up what else needs threads, such as keeping a lease.
_THREADS = ThreadPoolExecutor(8, thread_name_prefix="circinus-cluster")


async def call_in_thread(call: Callable[..., _T], *arguments: Any, timeout_s: float = LOOK_S) -> _T:
    """What a call gives that blocks.

    Raises:
        ServingError: it takes longer than the patience; it may still go on.
    """
    calling = asyncio.get_running_loop().run_in_executor(_THREADS, partial(call, *arguments))
    try:
        async with asyncio.timeout(timeout_s):  # `wait_for` of Python 3.11 now and then forgets that it was cancelled
            return await calling
    except TimeoutError:
        raise ServingError(f"the cluster does not answer within {timeout_s:g} s") from None
