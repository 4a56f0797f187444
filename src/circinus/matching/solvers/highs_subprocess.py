"""HiGHS in a subprocess that is killed if it exceeds its time limit."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import weakref
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection

from circinus.arrays import FloatArray
from circinus.matching.solvers.highs import LpModel

_GRACE_S, _GRACE_SHARE = 1.0, 0.25
"""Grace period of the solver after its time limit, in seconds and as a share of the limit."""

_START_TIMEOUT_S = 30.0
"""Timeout of the subprocess's start; half a second is usual."""


class HighsSubprocess:
    """`highs.solve_milp` in a subprocess, started when first needed and reused.

    A HiGHS run may continue long after its time limit; nothing inside its process can end it.
    """

    def __init__(self, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._finalizer: weakref.finalize[..., HighsSubprocess] | None = None
        self._is_ready = False

    def start(self) -> None:
        """Start the process ahead of its first use.

        Raises:
            OSError: the system refuses a socket or process.
        """
        if self._process is None or self._process.poll() is not None:
            self.close()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "circinus.matching.solvers.highs_process", str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            self._connection = Connection(ours.detach())
            self._finalizer = weakref.finalize(self, _kill, self._process, self._connection)

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
        """Solve as `highs.solve_milp`; return (None, -inf) if the subprocess was killed or ended."""
        self.start()
        assert self._connection is not None
        model = LpModel(**{field.name: getattr(programme, field.name) for field in fields(LpModel)})
        arguments: dict[str, object] = {"programme": model, "objective": objective, "start": start}
        arguments |= {"time_limit_s": time_limit_s, "gap": gap, "seed": seed}
        try:
            # Before the process is ready, sending more than the socket's buffer would block forever.
            if not self._is_ready and not self._connection.poll(_START_TIMEOUT_S):
                self.close()
                return None, -math.inf
            if not self._is_ready:
                self._connection.recv()
                self._is_ready = True
            self._connection.send(arguments)
            if self._connection.poll(time_limit_s * (1 + _GRACE_SHARE) + self._grace_s):
                result: tuple[FloatArray | None, float] = self._connection.recv()
                return result
        except (EOFError, OSError):
            pass
        except BaseException:  # on an interrupt, the pending answer would be mistaken for that of the next request
            self.close()
            raise
        self.close()
        return None, -math.inf

    def close(self) -> None:
        """End the process, if there is one. May be called more than once."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = self._connection = self._finalizer = None
        self._is_ready = False


def _kill(process: subprocess.Popen[bytes], connection: Connection) -> None:
    with suppress(OSError):
        connection.close()
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
