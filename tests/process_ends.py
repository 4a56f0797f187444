"""Ends of processes that a test did not start itself."""

from __future__ import annotations

import time

import psutil

from budget import HANG_LIMIT_S


def has_ended(process: psutil.Process) -> bool:
    """Wait until a process has ended; a zombie has, however long its parent takes to reap it."""
    deadline_s = time.monotonic() + HANG_LIMIT_S
    while time.monotonic() < deadline_s:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False
