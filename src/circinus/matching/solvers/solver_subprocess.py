"""HiGHS in a process that is ended when it does not keep its time limit."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection

from circinus.arrays import FloatArray
from circinus.matching.solvers.highs import LpModel
from circinus.matching.solvers.solver_process import SolveRequest

_GRACE_S, _GRACE_SHARE = 1.0, 0.25
"""Seconds beyond its time limit, and a share of that, which the solver may take to come to its end."""


_START_S = 30.0
"""Until the process listens; half a second is usual."""


class SubprocessSolver:
    """`highs.minimise` in another process, started when it is first needed and kept for the next time.

    One HiGHS run was seen to go on long after its time limit; nothing inside the same process can end that.
    """

    def __init__(self, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._finalizer: weakref.finalize[..., SubprocessSolver] | None = None
        self._listens = False

    def start(self) -> None:
        """Start the process, so that it has begun by the time it is needed.

        Raises:
            OSError: as the system refuses sockets or processes.
        """
        if self._process is None or self._process.poll() is not None:
            self.close()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "circinus.matching.solvers.solver_process", str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._connection = Connection(ours.detach())
            self._finalizer = weakref.finalize(self, _end, self._process, self._connection)

    def minimise(
        self,
        programme: LpModel,
        objective: FloatArray,
        start: FloatArray,
        *,
        time_limit_s: float,
        gap: float,
        seed: int,
    ) -> tuple[FloatArray | None, float]:
        """As `highs.minimise`; neither values nor a bound where the solver had to be ended, or came to its end."""
        self.start()
        assert self._connection is not None
        plain = LpModel(
            upper=programme.upper,
            row_columns=programme.row_columns,
            row_values=programme.row_values,
            row_lower=programme.row_lower,
            row_upper=programme.row_upper,
        )
        try:
            # Before it listens, nothing larger than the socket's buffer can be sent without waiting for ever.
            if not self._listens and not self._connection.poll(_START_S):
                self.close()
                return None, -math.inf
            if not self._listens:
                self._connection.recv()
                self._listens = True
            self._connection.send(SolveRequest(plain, objective, start, time_limit_s, gap, seed))
            if self._connection.poll(time_limit_s * (1 + _GRACE_SHARE) + self._grace_s):
                found: tuple[FloatArray | None, float] = self._connection.recv()
                return found
        except (EOFError, OSError):
            pass
        except BaseException:  # an interrupt: an answer that nobody waits for would be taken for the next one's
            self.close()
            raise
        self.close()
        return None, -math.inf

    def close(self) -> None:
        """End the process, if there is one. May be called more than once."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._connection = self._finalizer = None
        self._listens = False


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    with suppress(OSError):
        connection.close()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
