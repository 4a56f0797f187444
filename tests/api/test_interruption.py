"""Interruption of a synchronous call that waits for another thread, as in a notebook."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

from budget import HANG_LIMIT_S
from circinus.api.synchronous import run


def test_an_interruption_cancels_the_coroutine() -> None:
    cancelled = threading.Event()

    async def wait() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
        try:
            await asyncio.sleep(HANG_LIMIT_S)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    async def notebook() -> None:
        run(wait)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(notebook())
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert cancelled.wait(HANG_LIMIT_S)
