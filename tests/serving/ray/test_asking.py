"""Calls of a cluster that does not respond."""

from __future__ import annotations

import asyncio
import threading
from unittest import mock

import pytest

from budget import HANG_LIMIT_S
from circinus.errors import ServingError
from circinus.serving.ray.router_client import call_in_thread


def test_what_a_call_gives_or_raises_comes_through() -> None:
    assert asyncio.run(call_in_thread(divmod, 7, 2)) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(call_in_thread(divmod, 7, 0))


def test_calls_that_never_end_are_given_up_and_hold_up_nothing_else() -> None:
    ends = threading.Event()

    async def run() -> None:
        errors = await asyncio.gather(
            *(call_in_thread(ends.wait, timeout_s=0.05) for _ in range(50)), return_exceptions=True
        )
        assert {(type(error), error.code) for error in errors} == {(ServingError, "ray.silent_cluster")}
        assert await asyncio.wait_for(asyncio.to_thread(divmod, 7, 2), HANG_LIMIT_S) == (3, 1)
        ends.set()
        assert await call_in_thread(divmod, 7, 2) == (3, 1), "threads are free again"

    try:
        asyncio.run(run())
    finally:
        ends.set()


def test_whoever_is_cancelled_just_when_the_answer_comes_stays_cancelled() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[None] = loop.create_future()
        with mock.patch.object(loop, "run_in_executor", return_value=answered):
            call = asyncio.create_task(call_in_thread(divmod, 7, 2))
            await asyncio.sleep(0)
            answered.set_result(None)
            call.cancel()
            await asyncio.wait({call})
        assert call.cancelled()

    asyncio.run(run())
