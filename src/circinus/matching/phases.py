"""Log of the time that the phases of planning take."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Log how long a phase took, unless it fails."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    yield
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    _log.info("%s in %.2f s (%.2f s of CPU)", name, wall_s, cpu_s)
