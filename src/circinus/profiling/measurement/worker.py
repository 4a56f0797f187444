"""Worker process with one loaded operator: `python -m circinus.profiling.measurement.worker FD`.

It contains the same as a serving replica (an interpreter, the operator's imports, its model), so that load time and
resident memory are comparable. It listens on an inherited socket, and exits with the process that started it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.errors import OperatorError
from circinus.operators.host import BatchRun, OperatorHost

if TYPE_CHECKING:
    from circinus.specification.base_model import Scalar


@dataclass(frozen=True)
class LoadRequest:
    """Request to load an operator."""

    uses: str
    version: str
    """Expected version; a mismatch means that the file was edited after the planner read it."""
    knobs: Mapping[str, Scalar]
    cpus: float
    module_paths: tuple[Path, ...]
    search_path: tuple[str, ...]
    """`sys.path` of the planner, so that both resolve the same modules."""


@dataclass(frozen=True)
class ProcessRequest:
    """Request to process one batch."""

    batch: Sequence[Sequence[bytes]]
    """Pickled inputs of each item."""


@dataclass(frozen=True)
class Loaded:
    """Reply that the operator is ready."""

    load_s: float
    """Seconds to import the operator and to create it with its knob values, without the start of the process."""


def main() -> None:
    """Serve requests until the connection is closed."""
    # Registered first, so that it runs after the operators' own handlers and stops what these left running.
    atexit.register(_end_group)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    host: OperatorHost | None = None
    with Connection(int(sys.argv[1])) as connection:
        while True:
            try:
                request = connection.recv()
            except EOFError:
                return
            reply: Loaded | BatchRun | OperatorError
            try:
                if isinstance(request, LoadRequest):
                    sys.path[:] = request.search_path
                    started_s = time.perf_counter()
                    host = OperatorHost(
                        request.uses, request.version, request.knobs, request.cpus, request.module_paths
                    )
                    reply = Loaded(time.perf_counter() - started_s)
                else:
                    assert host is not None, "request to process before an operator was loaded"
                    reply = host.run(request.batch)
            except OperatorError as error:
                reply = error
            connection.send(reply)


def _end_with_parent() -> None:
    """Exit with the planner, even if it was killed.

    Standard input is a pipe that is never written to; it closes with the planner.
    """
    while os.read(0, 1):
        pass
    _end_group()
    os._exit(1)


def _end_group() -> None:
    """Kill the process group: this process and all that the operator started."""
    if os.getpgrp() == os.getpid():
        sys.stderr.flush()
        os.killpg(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Imported under its own name, so that pickled classes are the same as in the planner.
    from circinus.profiling.measurement.worker import main as _main

    _main()
