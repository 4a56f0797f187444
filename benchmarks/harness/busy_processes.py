"""Processes that keep CPUs busy beside a measurement."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_ALWAYS = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""
_COMES_AND_GOES = """
import os, random, sys, time
import numpy as np
rng, matrix, parent = random.Random(sys.argv[1]), np.random.rand(200, 200), os.getppid()
while os.getppid() == parent:
    end_s, table = time.monotonic() + rng.uniform(0.2, 2.0), {}
    while time.monotonic() < end_s:
        matrix @ matrix
        for number in range(20_000):
            table[number % 1_000] = str(number)
    time.sleep(rng.uniform(0.1, 0.6))
"""


@contextmanager
def busy_processes(count: int, seed: int | None = None) -> Iterator[None]:
    """Keep some CPUs busy, with processes that end with the block, or with this process if it is killed.

    They are in sessions of their own, as those of other programs are.

    Args:
        count: number of processes.
        seed: seed of their breaks, a fifth of the time; None: they compute all the time.
    """
    program = _ALWAYS if seed is None else _COMES_AND_GOES
    with ExitStack() as stack:
        for number in range(count):
            process = subprocess.Popen([sys.executable, "-c", program, f"{seed}-{number}"], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield
