"""Host of an operator: loads it, and runs and times batches. Profiling and all engines use it in their processes."""

from __future__ import annotations

import math
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from circinus.errors import OperatorError
from circinus.operators.framing import BlockingFrames
from circinus.operators.pickling import Payload, pickle_value, unpickle_value
from circinus.operators.process_output import begin_call, call_excerpt, print_exception
from circinus.operators.protocol import NO_BRANCH, ONE, Branch, Emission
from circinus.operators.registry import resolve_operator
from circinus.operators.run_clock import RunClock, RunTimes

if TYPE_CHECKING:  # processes start faster without the specification
    from circinus.specification.base_model import Scalar

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


def thread_limits(cpus: float) -> dict[str, str]:
    """Return environment variables that limit numeric libraries imported later to a replica's number of CPUs."""
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, math.ceil(cpus))))


class ReplyType(StrEnum):
    """Type of a message to the client, the first element of the header of a frame."""

    READY = "ready"
    """Message that the executor was created; the second element is its process id and the seconds that this took."""
    FAILED = "failed"
    """Message that the operator could not be loaded or failed; the second element is the `OperatorError`."""
    DONE = "done"
    """Message with the result of a batch; the payloads are the outputs."""


class Executor(Protocol):
    """Interface of what a forked process runs."""

    def answer(self, header: Any, payloads: Sequence[Payload]) -> tuple[Any, Sequence[Payload]] | None:
        """Return the reply to a frame of the client, or None for a frame without one."""
        ...


Outputs = tuple[tuple[int, bytes], ...]
"""(index of the branch or `NO_BRANCH`, pickled output) of each output for one input"""


@dataclass(frozen=True)
class BatchRun:
    """Processed batch."""

    outputs: tuple[bytes, ...]
    """Pickled outputs, input after input."""
    service_s: float
    """Seconds, as if the process had been limited to its share of CPUs, and had never waited for one."""
    times: RunTimes
    branches: tuple[tuple[int, ...], ...] | None = None
    """Of each input, the index of the branch of each of its outputs (`NO_BRANCH` for none); None if each has one output
    without a branch."""

    @property
    def of_inputs(self) -> list[Outputs]:
        """Outputs of each input, with the indexes of their branches."""
        if self.branches is None:
            return [((NO_BRANCH, output),) for output in self.outputs]
        remaining = iter(self.outputs)
        return [tuple((branch, next(remaining)) for branch in branches) for branches in self.branches]


class OperatorHost:
    """Operator that is loaded with its knob values, in the process that it runs in."""

    def __init__(
        self,
        uses: str,
        version: str,
        knobs: Mapping[str, Scalar],
        cpus: float,
        module_paths: Sequence[Path],
        emission: Emission = ONE,
    ) -> None:
        """Load the operator.

        Args:
            uses: reference of the operator.
            version: required version; empty for any.
            knobs: knob values.
            cpus: CPUs of the replica.
            module_paths: folders of its module.
            emission: what it returns for each input.

        Raises:
            OperatorError: it cannot be resolved, has another version, or fails while it loads.
        """
        begin_call()
        operator_type = resolve_operator(uses, module_paths)
        if version not in ("", operator_type.version):
            raise OperatorError(
                f"its source was edited (found version {operator_type.version[:12]}, expected {version[:12]})",
                code="operator.edited",
                hint="Run `circinus profile` or `circinus plan` again.",
            )
        self._cpus = cpus
        self._emission = emission
        with _operator_errors("operator.raised"):
            self._operator = operator_type.create(knobs, cpus)

    def run(self, batch: Sequence[Sequence[Payload]], *, with_workers: bool = False) -> BatchRun:
        """Process and time a batch of pickled inputs (for each item, one for each parent).

        Args:
            batch: the batch.
            with_workers: whether waits of child processes and other threads are estimated, see `RunClock`.

        Raises:
            OperatorError: the operator raised an exception or broke its contract.
        """
        begin_call()
        with _operator_errors("operator.raised"):
            columns = [[unpickle_value(value) for value in column] for column in zip(*batch, strict=True)]
            clock = RunClock(self._cpus, with_workers=with_workers)
            outputs = self._operator.process(*columns)
            times = clock.stop()
        if not isinstance(outputs, Sequence) or len(outputs) != len(batch):
            result = f"{len(outputs)} outputs" if hasattr(outputs, "__len__") else type(outputs).__name__
            raise OperatorError(
                f"found {result} for a batch of {len(batch)}, expected a sequence of as many",
                code="operator.wrong_output_count",
            )
        branches = None
        if self._emission != ONE:
            emitted = [emitted_values(self._emission, output) for output in outputs]
            branches = tuple(tuple(branch for branch, _ in values) for values in emitted)
            outputs = [value for values in emitted for _, value in values]
        with _operator_errors("operator.unpicklable_output", "its output cannot be pickled: "):
            pickled = tuple(pickle_value(output) for output in outputs)
        return BatchRun(pickled, times.service_s(self._cpus), times, branches)

    def answer(self, items: int, payloads: Sequence[Payload]) -> tuple[Any, Sequence[Payload]]:
        """See `Executor.answer`. The header is the number of items, the payloads are their inputs, item by item.

        The result is (service time in seconds, `RunTimes`, peak resident memory of the process in bytes,
        `BatchRun.branches`).
        """
        inputs = len(payloads) // items
        try:
            batch = [payloads[item * inputs : (item + 1) * inputs] for item in range(items)]
            run = self.run(batch, with_workers=True)
        except OperatorError as error:
            print_exception()
            return (ReplyType.FAILED, error), ()
        # A forked process begins with the memory of the fork server, which is small.
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return (ReplyType.DONE.value, (run.service_s, run.times, peak_bytes, run.branches)), run.outputs


def emitted_values(emission: Emission, output: Any) -> list[tuple[int, Any]]:
    """Return the values that an operator emitted for one input, with the indexes of their branches.

    Raises:
        OperatorError: the output is not what the specification says.

    Example:
        >>> emitted_values(Emission(max_elements=3, branches=("car", "person")), [Branch("person", "crop 1")])
        [(1, 'crop 1')]
    """
    values = [output]
    if emission.max_elements is not None:
        if not isinstance(output, Sequence) or isinstance(output, str | bytes | bytearray | memoryview):
            raise OperatorError(
                f"found {type(output).__name__}, expected a list of elements for each input",
                code="operator.no_list",
                hint="Return lists, or leave out `emits: many`.",
            )
        if len(output) > emission.max_elements:
            raise OperatorError(
                f"found {len(output)} elements for one input, expected at most {emission.max_elements}",
                code="operator.too_many_elements",
                hint="Raise `at_most` of the operator, or return fewer.",
            )
        values = list(output)
    if not emission.branches:
        return [(NO_BRANCH, value) for value in values]
    taken = []
    for value in values:
        if not isinstance(value, Branch) or value.name not in emission.branches:
            is_branch = isinstance(value, Branch)
            found = f"the branch {value.name!r}" if is_branch else type(value).__name__
            raise OperatorError(
                f"found {found}, expected `Branch(name, value)` with one of the names {', '.join(emission.branches)}",
                code="operator.unknown_branch",
                hint="Name it in `branches` of the operator." if is_branch else "Return it, or leave out `branches`.",
            )
        taken.append((emission.branches.index(value.name), value.value))
    return taken


@contextmanager
def _operator_errors(code: str, prefix: str = "") -> Iterator[None]:
    """Turn any exception of the user's code into an OperatorError of one line, with its location in that code."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise OperatorError(f"{prefix}{describe_exception(error)}", code=code) from error


def describe_exception(error: BaseException) -> str:
    """Return an exception of the user's code in one line, with its location in that code and the last output."""
    own = Path(__file__).parents[1]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if own not in Path(f.filename).parents]
    location = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
    try:
        text = str(error)
    except Exception as failure:  # of the user's `__str__`
        text = f"its text failed with {type(failure).__name__}"
    return f"{type(error).__name__}: {text}{location}{call_excerpt()}"


class ProcessState(NamedTuple):
    """State of the client that a process of user code takes over, as if it had been forked from the client."""

    search_path: tuple[str, ...]
    folder: str
    """Working folder; empty if it was removed."""
    environment: dict[str, str]
    is_without_bytecode: bool
    """Whether imports write no bytecode."""

    @classmethod
    def current(cls) -> ProcessState:
        """Return the state of this process."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = ""
        return cls(tuple(sys.path), folder, dict(os.environ), sys.dont_write_bytecode)

    def take_over(self, cpus: float) -> None:
        """Give this process the state, with threads limited to its CPUs."""
        os.environ.clear()
        os.environ.update({**self.environment, **thread_limits(cpus)})
        sys.path[:] = self.search_path
        sys.dont_write_bytecode = self.is_without_bytecode
        with suppress(OSError):
            os.chdir(self.folder or ".")


def run_executor(connection: socket.socket, create: Callable[..., Executor]) -> None:
    """Create the executor from the first frame, then answer frames until the client closes the connection."""
    frames = BlockingFrames(connection)
    frame = frames.receive()
    if frame is None:
        return
    cpus, state, own_create, arguments = frame[0]
    state.take_over(cpus)
    start_s = time.perf_counter()
    try:
        executor = (own_create or create)(*arguments)
    except OperatorError as error:
        print_exception()
        frames.send((ReplyType.FAILED, error))
        return
    frames.send((ReplyType.READY, (os.getpid(), time.perf_counter() - start_s)))
    while (frame := frames.receive()) is not None:
        reply = executor.answer(*frame)
        if reply is not None:
            frames.send(*reply)
