"""Subprocess that runs HiGHS and can be killed: `python -m circinus.matching.solvers.solver_process FD`.

It reads requests from an inherited socket, solves one program at a time, and exits with its parent process.
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
"""Message sent once the process accepts requests."""


@dataclass(frozen=True)
class SolveRequest:
    """A program to minimize; see `highs.solve_milp`."""

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
                request: SolveRequest = connection.recv()
            except EOFError:
                return
            result = solve_milp(
                request.programme,
                request.objective,
                request.start,
                time_limit_s=request.time_limit_s,
                gap=request.gap,
                seed=request.seed,
            )
            connection.send(result)


def _end_with_parent() -> None:
    """Exit when the parent closes its end of our standard input."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
