"""Processes that keep a machine busy, and come and go."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_PROGRAM = """
import random, sys, time
import numpy as np
rng, matrix = random.Random(sys.argv[1]), np.random.rand(200, 200)
while True:
    end_s, table = time.monotonic() + rng.uniform(0.2, 2.0), {}
    while time.monotonic() < end_s:
        matrix @ matrix
        for number in range(20_000):
            table[number % 1_000] = str(number)
    time.sleep(rng.uniform(0.1, 0.6))
"""


@contextmanager
def busy_processes(count: int, seed: int) -> Iterator[None]:
    """Run processes that compute four fifths of the time; in sessions of their own, as other users' programs are."""
    with ExitStack() as stack:
        for number in range(count):
            process = subprocess.Popen([sys.executable, "-c", _PROGRAM, f"{seed}-{number}"], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield
