"""Memory, descriptors, threads and processes of a running program over time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

import psutil

_POLL_S = 0.1


@dataclass(frozen=True)
class ProcessSample:
    """Use of resources of one process."""

    rss_bytes: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, process: int) -> ProcessSample:
        """Sample a process; zeros if it has ended."""
        with suppress(psutil.Error):
            watched = psutil.Process(process)
            with watched.oneshot():
                return cls(watched.memory_info().rss, watched.num_fds(), watched.num_threads())
        return cls(0, 0, 0)


class MemoryWatch:
    """Context manager that notes the maximum resident memory of a process."""

    def __init__(self, process: int) -> None:
        self.peak_bytes = 0
        self._process = process
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> MemoryWatch:
        self._task = asyncio.create_task(self._poll())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _poll(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, ProcessSample.of(self._process).rss_bytes)
            await asyncio.sleep(_POLL_S)


def processes_with(variable: str, value: str) -> Sequence[int]:
    """Return the ids of the running processes that have a variable in their environment, except this one."""
    entry, found = f"{variable}={value}".encode(), []
    for process in psutil.pids():
        if process == os.getpid():
            continue
        with suppress(OSError, psutil.Error):
            with open(f"/proc/{process}/environ", "rb") as file:
                has_entry = entry in file.read().split(b"\0")
            if has_entry and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
