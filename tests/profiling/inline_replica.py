"""Operators in the process of the tests, for what has nothing to do with the processes of replicas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from circinus.errors import OperatorError
from circinus.operators.executor_process import OperatorProcessError
from circinus.operators.host import BatchRun, OperatorHost
from circinus.operators.run_clock import RunTimes
from circinus.profiling.measurement.operator_process import OperatorProcessKey


class InlineReplica:
    """Stands in for `Replica`: it loads, warms up and packs as that does, and takes no process.

    Every batch takes a millisecond for each item, and a little more than the one before: no two times are the same.
    """

    waited_share = 0.0
    """Share of its elapsed time in which each batch waits for a CPU."""
    worker_waited_share = 0.0
    """Share in which its workers wait for one."""

    alive = True
    load_s = 0.1
    startup_s = 0.5
    peak_memory_bytes = 20_000_000
    elapsed_s = 0.0

    def __init__(
        self,
        batches: Iterator[int],
        _: object,
        key: OperatorProcessKey,
        module_paths: tuple[Path, ...],
        timeout_s: float,
        __: object = None,
    ) -> None:
        self.key = key
        self._batches = batches
        self._warm = False
        try:
            self._host = OperatorHost(key.uses, key.version, key.knobs.as_dict(), key.cpus, module_paths, key.emission)
        except OperatorError as error:
            raise OperatorProcessError(str(error)) from error

    def process_each(
        self, batches: Sequence[Sequence[Sequence[bytes]]], cpus: float | None = None, source: str = ""
    ) -> Iterator[BatchRun]:
        return map(self._process, batches)

    def _process(self, batch: Sequence[Sequence[bytes]]) -> BatchRun:
        try:
            if not self._warm:
                self._host.run(batch)
                self._warm = True
            run = self._host.run(batch)
        except OperatorError as error:
            raise OperatorProcessError(str(error)) from error
        service_s = 1e-3 * len(batch) + 1e-9 * next(self._batches)
        elapsed_s = service_s / (1.0 - self.waited_share)
        self.elapsed_s += elapsed_s
        waits_s = elapsed_s - service_s, elapsed_s * self.worker_waited_share
        return replace(run, service_s=service_s, times=RunTimes(elapsed_s, service_s, *waits_s))

    def memory_bytes(self) -> int:
        return self.peak_memory_bytes

    def request_exit(self) -> None:
        """Do nothing: there is no process."""

    def close(self) -> None:
        self.alive = False
