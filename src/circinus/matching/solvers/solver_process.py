"""The process in which HiGHS runs where it must be possible to end it: `python -m circinus.matching.solvers.solver_process FD`.

It listens on an inherited socket, solves one programme after the other, and ends with the process that started it.
"""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection

from circinus.arrays import FloatArray
from circinus.matching.solvers.highs import LpModel, solve_milp

READY = "ready"
"""Said once, when requests are listened to."""


@dataclass(frozen=True)
class SolveRequest:
    """A programme to minimise; see `highs.minimise`."""

    programme: LpModel
    objective: FloatArray
    start: FloatArray
    time_limit_s: float
    gap: float
    seed: int


def main() -> None:
    """Serve requests until the other end closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Connection(int(sys.argv[1])) as connection:
        connection.send(READY)
        while True:
            try:
                asked: SolveRequest = connection.recv()
            except EOFError:
                return
            found = solve_milp(
                asked.programme,
                asked.objective,
                asked.start,
                time_limit_s=asked.time_limit_s,
                gap=asked.gap,
                seed=asked.seed,
            )
            connection.send(found)


def _end_with_parent() -> None:
    """Its end of our standard input closes with it."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
