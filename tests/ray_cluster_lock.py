"""Lock for tests that start a Ray cluster."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive_ray_cluster() -> Iterator[None]:
    """Wait until no other pytest process of this user runs a cluster, as two clusters at once are twice as slow."""
    path = Path(tempfile.gettempdir()) / f"circinus-ray-cluster-{os.getuid()}.lock"
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
