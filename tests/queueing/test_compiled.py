"""Compiled functions: what a process loads from the cache."""

from __future__ import annotations

import subprocess
import sys

from circinus.queueing.event_block import load_kernels

_SCRIPT = """
import sys
from circinus.queueing.event_block import load_kernels
from circinus.queueing.event_kernel import advance

load_kernels()
assert advance.stats.cache_hits and not advance.stats.cache_misses, advance.stats
sys.exit("numba.np.arraymath" in sys.modules)
"""


def test_a_process_loads_kernels_from_the_cache_without_what_only_a_compilation_needs() -> None:
    load_kernels()  # fills the cache
    assert subprocess.run([sys.executable, "-c", _SCRIPT], check=False).returncode == 0
