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
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.errors import CircinusError
from circinus.operators import Operator, resolve_operator
from circinus.operators.pickling import pickle_value, unpickle_value
from circinus.operators.registry import NotGuardedError

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


@dataclass(frozen=True)
class Processed:
    """Reply with a processed batch."""

    outputs: tuple[bytes, ...]
    """Pickled output of each item."""
    elapsed_s: float
    cpu_s: float
    """CPU seconds of all threads."""


@dataclass(frozen=True)
class Failed:
    """Reply that the operator raised an exception or broke its contract."""

    reason: str
    error: NotGuardedError | None = None
    """Error that ends the measurement, because it concerns every configuration."""


def main() -> None:
    """Serve requests until the connection is closed."""
    # Registered first, so that it runs after the operators' own handlers and stops what these left running.
    atexit.register(_end_group)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    operator: Operator | None = None
    with Connection(int(sys.argv[1])) as connection:
        while True:
            try:
                request = connection.recv()
            except EOFError:
                return
            reply: Loaded | Processed | Failed
            try:
                if isinstance(request, LoadRequest):
                    started_s = time.perf_counter()
                    operator = _load(request)
                    reply = Loaded(time.perf_counter() - started_s)
                else:
                    assert operator is not None, "request to process before an operator was loaded"
                    reply = _process(operator, request)
            except (Exception, SystemExit) as error:  # the user's operator may raise anything
                reply = Failed(_reason(error), error if isinstance(error, NotGuardedError) else None)
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


def _load(request: LoadRequest) -> Operator:
    sys.path[:] = request.search_path
    operator_type = resolve_operator(request.uses, request.module_paths)
    if operator_type.version != request.version:
        raise CircinusError(
            "its source was edited during the measurement",
            code="operator.edited",
            hint="Start the measurement again.",
        )
    return operator_type.create(request.knobs, request.cpus)


def _process(operator: Operator, request: ProcessRequest) -> Processed:
    columns = [[unpickle_value(data) for data in column] for column in zip(*request.batch, strict=True)]
    cpu_start_s, start_s = time.process_time(), time.perf_counter()
    outputs = operator.process(*columns)
    elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_start_s
    if not isinstance(outputs, Sequence) or len(outputs) != len(request.batch):
        result = f"{len(outputs)} outputs" if hasattr(outputs, "__len__") else type(outputs).__name__
        raise CircinusError(
            f"found {result} for a batch of {len(request.batch)}, expected a sequence of as many",
            code="operator.wrong_output_count",
        )
    try:
        pickled = tuple(pickle_value(output) for output in outputs)
    except Exception as error:  # an output's own methods may raise anything
        raise CircinusError(
            f"its output cannot be pickled: {type(error).__name__}: {error}", code="operator.unpicklable_output"
        ) from error
    return Processed(pickled, elapsed_s, cpu_s)


def _reason(error: BaseException) -> str:
    """Return the error in one line, with its location in the user's code."""
    if isinstance(error, CircinusError):
        return str(error)
    own = Path(__file__).parents[2]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if own not in Path(f.filename).parents]
    location = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{location}"


if __name__ == "__main__":
    # Imported under its own name, so that pickled classes are the same as in the planner.
    from circinus.profiling.measurement.worker import main as _main

    _main()
