"""Host of an operator: loads it, and runs and times batches. Profiling and all engines use it in their processes."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from circinus.errors import OperatorError
from circinus.operators.pickling import Payload, pickle_value, unpickle_value
from circinus.operators.registry import resolve_operator

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


@dataclass(frozen=True)
class BatchRun:
    """Processed batch."""

    outputs: tuple[bytes, ...]
    """Pickled output of each item."""
    service_s: float
    """Seconds, as if the process had been limited to its share of CPUs."""
    elapsed_s: float


class OperatorHost:
    """Operator that is loaded with its knob values, in the process that it runs in."""

    def __init__(
        self, uses: str, version: str, knobs: Mapping[str, Scalar], cpus: float, module_paths: Sequence[Path]
    ) -> None:
        """Load the operator.

        Args:
            uses: reference of the operator.
            version: required version; empty for any.
            knobs: knob values.
            cpus: CPUs of the replica.
            module_paths: folders of its module.

        Raises:
            OperatorError: it cannot be resolved, has another version, or fails while it loads.
        """
        operator_type = resolve_operator(uses, module_paths)
        if version not in ("", operator_type.version):
            raise OperatorError(
                f"its source was edited (found version {operator_type.version[:12]}, expected {version[:12]})",
                code="operator.edited",
                hint="Run `circinus profile` or `circinus plan` again.",
            )
        self._cpus = cpus
        with _operator_errors("operator.raised"):
            self._operator = operator_type.create(knobs, cpus)

    def run(self, batch: Sequence[Sequence[Payload]]) -> BatchRun:
        """Process and time a batch of pickled inputs (for each item, one for each parent).

        Raises:
            OperatorError: the operator raised an exception or broke its contract.
        """
        with _operator_errors("operator.raised"):
            columns = [[unpickle_value(value) for value in column] for column in zip(*batch, strict=True)]
            cpu_start_s, start_s = time.process_time(), time.perf_counter()
            outputs = self._operator.process(*columns)
            elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_start_s
        if not isinstance(outputs, Sequence) or len(outputs) != len(batch):
            result = f"{len(outputs)} outputs" if hasattr(outputs, "__len__") else type(outputs).__name__
            raise OperatorError(
                f"found {result} for a batch of {len(batch)}, expected a sequence of as many",
                code="operator.wrong_output_count",
            )
        with _operator_errors("operator.unpicklable_output", "its output cannot be pickled: "):
            pickled = tuple(pickle_value(output) for output in outputs)
        # Threads are limited to whole CPUs, and some libraries ignore the limit. Under a scheduler that grants `cpus`
        # CPU seconds per second, this much CPU time would take at least this long.
        return BatchRun(pickled, max(elapsed_s, cpu_s / self._cpus), elapsed_s)


@contextmanager
def _operator_errors(code: str, prefix: str = "") -> Iterator[None]:
    """Turn any exception of the user's code into an OperatorError of one line, with its location in that code."""
    try:
        yield
    except (Exception, SystemExit) as error:
        own = Path(__file__).parents[1]
        frames = [f for f in traceback.extract_tb(error.__traceback__) if own not in Path(f.filename).parents]
        location = f" ({Path(frames[0].filename).name}:{frames[0].lineno})" if frames else ""
        raise OperatorError(f"{prefix}{type(error).__name__}: {error}{location}", code=code) from error
