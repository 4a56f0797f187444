"""Who writes to a store: one at a time, and known by name."""

from __future__ import annotations

import os
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: SQLite's own lock does, and nobody can be named
    fcntl = None  # type: ignore[assignment]

_LOOK_AGAIN_S = 0.005


class WriteLock:
    """A lock of the operating system on a file, in which the holder says who it is.

    The system takes the lock back when the holder's process ends in whatever way, so that nothing stale remains; what
    is written in the file means something only while the lock is held.
    """

    def __init__(self, path: Path) -> None:
        """Lock `path`, which is made when it is first needed."""
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, patience_s: float) -> bool:
        """Wait for the lock; False when another still has it after `patience_s` seconds.

        Raises:
            OSError: the file cannot be made or locked.
        """
        if fcntl is None:
            return True
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        end_s = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end_s:
                    return False
                time.sleep(_LOOK_AGAIN_S)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, _description().encode(), 0)
        return True

    def release(self) -> None:
        """Let the next one write."""
        if fcntl is not None and self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def holder(self) -> str:
        """Who has the lock, as it described itself; asked when `acquire` has failed."""
        try:
            return self.path.read_text(encoding="utf-8", errors="replace") or "another process"
        except OSError:
            return "another process"

    def close(self) -> None:
        """Release what is held. May be called more than once."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _description() -> str:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else sys.executable
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} ({command}), since {since}"
