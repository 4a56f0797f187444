"""The process that holds one loaded operator while it is measured: `python -m circinus.profiling.measurement.worker FD`.

It is what a replica is when it serves (an interpreter, the operator's imports, its model), so that its load time and
its resident memory are a replica's too. It listens on an inherited socket and ends with the process that started it.
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
from circinus.profiling.measurement.pickling import pickle_value, unpickle_value

if TYPE_CHECKING:
    from circinus.specification.base_model import Scalar


@dataclass(frozen=True)
class LoadRequest:
    """Load an operator."""

    uses: str
    version: str
    """Expected; another one means that the file was edited after the planner read it."""
    knobs: Mapping[str, Scalar]
    cpus: float
    module_paths: tuple[Path, ...]
    search_path: tuple[str, ...]
    """`sys.path` of the planner, so that both find the same modules."""


@dataclass(frozen=True)
class ProcessRequest:
    """Process one batch."""

    batch: Sequence[Sequence[bytes]]
    """For each item its inputs, packed."""


@dataclass(frozen=True)
class Loaded:
    """The operator is ready."""

    load_s: float
    """Seconds to import it and to make it with its knobs; not those of the process until then."""


@dataclass(frozen=True)
class Processed:
    """A batch was processed."""

    outputs: tuple[bytes, ...]
    """For each item its output, packed."""
    elapsed_s: float
    cpu_s: float
    """CPU seconds of all threads meanwhile."""


@dataclass(frozen=True)
class Failed:
    """The operator raised, or broke its contract."""

    reason: str


def main() -> None:
    """Serve requests until the other end closes."""
    # Registered before any operator's own: runs after those, and ends what they left.
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
                    began = time.perf_counter()
                    operator = _load(request)
                    reply = Loaded(time.perf_counter() - began)
                else:
                    assert operator is not None, "asked to process before anything was loaded"
                    reply = _process(operator, request)
            except (Exception, SystemExit) as error:  # whatever the user's operator raises
                reply = Failed(_reason(error))
            connection.send(reply)


def _end_with_parent() -> None:
    """Standard input is a pipe that nobody writes to: it ends when the planner does, however that was killed."""
    while os.read(0, 1):
        pass
    _end_group()
    os._exit(1)


def _end_group() -> None:
    """End this process and all that the operator started, which is in its group."""
    if os.getpgrp() == os.getpid():
        sys.stderr.flush()
        os.killpg(os.getpid(), signal.SIGKILL)


def _load(request: LoadRequest) -> Operator:
    sys.path[:] = request.search_path
    operator_type = resolve_operator(request.uses, request.module_paths)
    if operator_type.version != request.version:
        raise CircinusError("its source was edited while it was being measured; start the measurement again")
    return operator_type.create(request.knobs, request.cpus)


def _process(operator: Operator, request: ProcessRequest) -> Processed:
    columns = [[unpickle_value(data) for data in column] for column in zip(*request.batch, strict=True)]
    cpu_before, before = time.process_time(), time.perf_counter()
    outputs = operator.process(*columns)
    elapsed_s, cpu_s = time.perf_counter() - before, time.process_time() - cpu_before
    if not isinstance(outputs, Sequence) or len(outputs) != len(request.batch):
        found = f"{len(outputs)} outputs" if hasattr(outputs, "__len__") else type(outputs).__name__
        raise CircinusError(f"found {found} for a batch of {len(request.batch)}, expected a sequence of as many")
    try:
        sent = tuple(pickle_value(output) for output in outputs)
    except Exception as error:  # pickle raises whatever an output's own methods raise
        raise CircinusError(f"its output cannot be pickled: {type(error).__name__}: {error}") from error
    return Processed(sent, elapsed_s, cpu_s)


def _reason(error: BaseException) -> str:
    """The error in one line, with the place in the user's code that was called from here."""
    if isinstance(error, CircinusError):
        return str(error)
    own = Path(__file__).parent.parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if own not in Path(f.filename).parents]
    where = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


if __name__ == "__main__":
    # Under its own name, so that what is pickled here has the same classes as in the planner.
    from circinus.profiling.measurement.worker import main as _main

    _main()
