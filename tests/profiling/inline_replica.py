"""Operators in the process of the tests, for what has nothing to do with the processes of replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from circinus.operators import resolve_operator
from circinus.profiling.measurement import worker
from circinus.profiling.measurement.operator_process import BatchRun, OperatorProcessError, OperatorProcessKey


class InlineReplica:
    """Stands in for `Replica`: it loads, warms up and packs as that does, and takes no process.

    Every batch takes a millisecond for each item, and a little more than the one before: no two times are the same.
    """

    alive = True
    load_s = 0.1
    startup_s = 0.5
    peak_memory_bytes = 20_000_000

    def __init__(
        self,
        batches: Iterator[int],
        key: OperatorProcessKey,
        version: str,
        module_paths: tuple[Path, ...],
        timeout_s: float,
    ) -> None:
        self.key = key
        self._batches = batches
        self._warm = False
        try:
            operator_type = resolve_operator(key.uses, module_paths)
            assert operator_type.version == version
            self._operator = operator_type.create(key.knobs.as_dict(), key.cpus)
        except Exception as error:
            raise OperatorProcessError(worker._reason(error)) from error

    def process(self, batch: Sequence[Sequence[bytes]]) -> BatchRun:
        try:
            if not self._warm:
                worker._process(self._operator, worker.ProcessRequest(batch))
                self._warm = True
            done = worker._process(self._operator, worker.ProcessRequest(batch))
        except Exception as error:
            raise OperatorProcessError(worker._reason(error)) from error
        return BatchRun(done.outputs, 1e-3 * len(batch) + 1e-9 * next(self._batches))

    def memory_bytes(self) -> int:
        return self.peak_memory_bytes

    def close(self) -> None:
        self.alive = False
