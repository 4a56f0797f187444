"""Subprocess that runs HiGHS and can be killed: `python -m circinus.matching.solvers.highs_process FD`.

It reads the arguments of `solve_milp` from an inherited socket, solves one program at a time, and exits with its parent
process.
"""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection

from circinus.matching.solvers.highs import solve_milp

READY = "ready"
"""Message sent once the process accepts requests."""


def main() -> None:
    """Serve requests until the other end closes."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with Connection(int(sys.argv[1])) as connection:
        connection.send(READY)
        while True:
            try:
                arguments = connection.recv()
            except EOFError:
                return
            connection.send(solve_milp(**arguments))


def _end_with_parent() -> None:
    """Exit when the parent closes its end of our standard input."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main()
