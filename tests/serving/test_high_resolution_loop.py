"""Event loop of engines and load generators."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from budget import HANG_LIMIT_S
from circinus.serving.local.high_resolution_loop import new_event_loop


def test_only_the_last_milliseconds_of_a_wait_take_another_system_call(monkeypatch: pytest.MonkeyPatch) -> None:
    fine_s = list[float]()
    wait = select.select

    def noted(read: Sequence[Any], write: Sequence[Any], other: Sequence[Any], timeout_s: float) -> Any:
        fine_s.append(timeout_s)
        return wait(read, write, other, timeout_s)

    monkeypatch.setattr(select, "select", noted)

    async def drive() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        with here, there:
            arrived = loop.create_future()
            loop.add_reader(here, arrived.set_result, None)
            loop.call_later(HANG_LIMIT_S, arrived.cancel)
            there.send(b"x")
            await arrived
            loop.remove_reader(here)
        assert not fine_s
        due_s = loop.time() + 0.02
        await asyncio.sleep(0.02)
        assert loop.time() >= due_s - 1e-6

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(drive())
    assert all(timeout_s <= 0.002 for timeout_s in fine_s)
