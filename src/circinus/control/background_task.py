"""A background task that the control loop polls."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
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
    """Runner of one task at a time in a daemon thread, so that the process may exit during a task.

    All tasks share the thread: with one for each, the allocator keeps memory of each, 1 MiB more for every plan.
    """

    def __init__(self) -> None:
        self._future: asyncio.Future[TaskSucceeded[T] | TaskFailed] | None = None
        self._tasks: SimpleQueue[Callable[[], None] | None] | None = None
        """Tasks of the thread, which ends at None; None before the first task."""

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

        if self._tasks is None:
            self._tasks = SimpleQueue()
            threading.Thread(target=_run_all, args=(self._tasks,), daemon=True).start()
            weakref.finalize(self, self._tasks.put, None)
        self._tasks.put(run)

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


def _run_all(tasks: SimpleQueue[Callable[[], None] | None]) -> None:
    while task := tasks.get():
        task()
        del task  # not kept, with all that it refers to, until the next one
