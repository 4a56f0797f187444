"""Calls of a cluster that does not answer."""

from __future__ import annotations

import asyncio
import threading

import pytest

from circinus.errors import ServingError
from circinus.serving.ray.asking import ask


def test_what_a_call_gives_or_raises_comes_through() -> None:
    assert asyncio.run(ask(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask(divmod, 7, 0))


def test_calls_that_never_end_are_given_up_and_hold_up_nothing_else() -> None:
    ends = threading.Event()

    async def run() -> None:
        stuck = await asyncio.gather(*(ask(ends.wait, patience_s=0.05) for _ in range(50)), return_exceptions=True)
        assert {str(one) for one in stuck} == {"the cluster does not answer within 0.05 s"}
        assert {type(one) for one in stuck} == {ServingError}
        assert await asyncio.wait_for(asyncio.to_thread(divmod, 7, 2), 30.0) == (3, 1)
        ends.set()
        assert await ask(divmod, 7, 2) == (3, 1), "threads are free again"

    try:
        asyncio.run(run())
    finally:
        ends.set()
