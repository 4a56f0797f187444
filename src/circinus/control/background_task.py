"""Work that goes on in a thread beside the loop, and is looked at when it is done."""

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
    """It ended well."""

    value: T


@dataclass(frozen=True)
class TaskFailed:
    """It did not; whatever went wrong must not end the loop."""

    reason: str


class BackgroundTask(Generic[T]):
    """One piece of work at a time. The process may end while it goes on."""

    def __init__(self) -> None:
        """Nothing goes on."""
        self._going: asyncio.Future[TaskSucceeded[T] | TaskFailed] | None = None

    @property
    def busy(self) -> bool:
        """Whether something goes on, or was not looked at yet."""
        return self._going is not None

    def start(self, work: Callable[[], T]) -> None:
        """Have it done; nothing else may be going on."""
        assert self._going is None, "one at a time"
        loop = asyncio.get_running_loop()
        going: asyncio.Future[TaskSucceeded[T] | TaskFailed] = loop.create_future()
        self._going = going

        def tell(result: TaskSucceeded[T] | TaskFailed) -> None:
            if not going.done():  # whoever waited may have given up
                going.set_result(result)

        def run() -> None:
            result: TaskSucceeded[T] | TaskFailed
            try:
                result = TaskSucceeded(work())
            except CircinusError as error:
                result = TaskFailed(str(error))
            except BaseException as error:  # of whatever kind: there is nobody else to tell
                result = TaskFailed(f"{type(error).__name__}: {error}")
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, result)

        threading.Thread(target=run, daemon=True).start()

    def poll(self) -> TaskSucceeded[T] | TaskFailed | None:
        """What came of it, once; None: nothing goes on, or it is not done."""
        if self._going is None or not self._going.done():
            return None
        going, self._going = self._going, None
        return going.result()

    async def wait(self, patience_s: float | None = None) -> None:
        """Until it is done, at most for so long."""
        if self._going is not None:
            await asyncio.wait([self._going], timeout=patience_s)
