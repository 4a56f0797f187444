"""A background task that the control loop polls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from circinus.errors import CircinusError

T = TypeVar("T")


@dataclass(frozen=True)
class TaskSucceeded(Generic[T]):
    """Result of a task that succeeded."""

    value: T


@dataclass(frozen=True)
class TaskFailed:
    """Failure of a task; it does not end the control loop."""

    reason: str


class BackgroundTask(Generic[T]):
    """Runner of one task at a time in a daemon thread, so that the process may exit during a task."""

    def __init__(self) -> None:
        self._future: asyncio.Future[TaskSucceeded[T] | TaskFailed] | None = None

    @property
    def busy(self) -> bool:
        """True if a task is running, or its result was not polled yet."""
        return self._future is not None

    def start(self, work: Callable[[], T]) -> None:
        """Start a task; no other task may be running."""
        assert self._future is None, "a task is running"
        loop = asyncio.get_running_loop()
        future: asyncio.Future[TaskSucceeded[T] | TaskFailed] = loop.create_future()
        self._future = future

        def set_result(result: TaskSucceeded[T] | TaskFailed) -> None:
            if not future.done():  # the waiting task may have been cancelled
                future.set_result(result)

        def run() -> None:
            result: TaskSucceeded[T] | TaskFailed
            try:
                result = TaskSucceeded(work())
            except CircinusError as error:
                result = TaskFailed(str(error))
            except BaseException as error:  # any failure must reach `poll`
                result = TaskFailed(f"{type(error).__name__}: {error}")
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(set_result, result)

        threading.Thread(target=run, daemon=True).start()

    def poll(self) -> TaskSucceeded[T] | TaskFailed | None:
        """Return the result of a finished task once, or None."""
        if self._future is None or not self._future.done():
            return None
        future, self._future = self._future, None
        return future.result()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait for the task to finish, or for `timeout_s`."""
        if self._future is not None:
            await asyncio.wait([self._future], timeout=timeout_s)
