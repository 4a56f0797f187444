"""Memory, descriptors, threads, descendants and logs of running programs."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

TRACEBACK = "Traceback (most recent call last)"
UNCAUGHT = TRACEBACK, "Exception ignored in", "Fatal Python error"
"""Texts that only a fault of the program prints."""
_ANY_UNCAUGHT = re.compile("|".join(map(re.escape, UNCAUGHT)))
_LAST_LINE = re.compile(r"^(\w[\w.]*(?:Error|Exception|Exit|Interrupt)\b.*)$", re.M)


@dataclass(frozen=True)
class ProcessSample:
    """Use of resources of one process."""

    rss_bytes: float
    descriptors: float
    threads: float

    @classmethod
    def of(cls, process: int) -> ProcessSample:
        """Sample a process; NaN, which meets no aim, if it has ended."""
        with suppress(psutil.Error):
            watched = psutil.Process(process)
            with watched.oneshot():
                if watched.status() != psutil.STATUS_ZOMBIE:
                    return cls(watched.memory_info().rss, watched.num_fds(), watched.num_threads())
        return cls(math.nan, math.nan, math.nan)


def is_alive(process: int) -> bool:
    """Return whether a process runs, and is not merely waited for by its parent."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False


def memory_bytes(process: int, name: str = "VmHWM") -> float:
    """Return an entry of the memory of a process, by default its maximum resident memory; infinity if it has ended."""
    with suppress(OSError):
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{process}/status").read_text(encoding="utf-8"), re.M)
        return int(found[1]) * 1024 if found else math.inf
    return math.inf


def reset_peak(process: int) -> None:
    """Let the maximum resident memory of a process begin at what it has now."""
    with suppress(OSError):
        Path(f"/proc/{process}/clear_refs").write_text("5", encoding="utf-8")


def children(process: int, *, recursive: bool = False) -> list[int]:
    """Return the ids of the processes that a process started, or of all below it."""
    with suppress(psutil.Error):
        return [child.pid for child in psutil.Process(process).children(recursive=recursive)]
    return []


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


def kill_with(variable: str, value: str) -> int:
    """Kill the running processes that have a variable in their environment; return their number."""
    processes = processes_with(variable, value)
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return len(processes)


class FaultLog:
    """Log of a program, read for tracebacks from where it was read last."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_bytes = path, 0

    def rewind(self) -> None:
        """Begin again: another process has emptied the log."""
        self._read_bytes = 0

    def tracebacks(self) -> list[str]:
        """Return the last lines of the tracebacks that the log got since the last call."""
        with suppress(FileNotFoundError), self._path.open(encoding="utf-8", errors="replace") as log:
            log.seek(self._read_bytes)
            text = log.read()
            self._read_bytes = log.tell()
            return [(_LAST_LINE.findall(block) or [block.strip()[:200]])[0] for block in _ANY_UNCAUGHT.split(text)[1:]]
        return []
