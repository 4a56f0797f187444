"""Replicas and outputs of operators that measurements on this machine share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from circinus.operators.run_clock import RunTimes
from circinus.operators.user_code import shared_processes
from circinus.profiling.item_runs import ItemRuns
from circinus.profiling.measurement.operator_process import OperatorProcess, OperatorProcessKey, OperatorProcessPool
from circinus.profiling.measurement.prefix_cache import PrefixCache
from circinus.profiling.settings import PROFILING


class ReplicaStart(NamedTuple):
    """Times of a started replica."""

    load_s: float
    startup_s: float


class OperatorRun(NamedTuple):
    """Runs of an operator on one item."""

    runs: ItemRuns
    times: RunTimes
    """Times of all runs together."""


class OperatorSession:
    """Replicas, outputs and failures of operators, from the first measurement until the session is closed.

    Runners of several pipelines, and of the parts of one budget, share a session: what they have in common is loaded
    and run once. Replicas are kept while they fit in memory, the least recently used are closed.
    """

    def __init__(
        self,
        module_paths: Sequence[Path],
        *,
        cache_bytes: int = PROFILING.cache_bytes,
        memory_limit_bytes: float | None = None,
        output: Path | None = None,
    ) -> None:
        """Begin a session without starting a process.

        Args:
            module_paths: folders of the operators' modules.
            cache_bytes: capacity of the prefix cache.
            memory_limit_bytes: memory limit of all loaded operators, see `OperatorProcessPool`.
            output: folder of the operators' output; by default it is not kept.
        """
        self.module_paths = tuple(module_paths)
        self.cache = PrefixCache(cache_bytes)
        self.runs: dict[tuple[str, str], OperatorRun] = {}
        """Runs by prefix and item key."""
        self.failures: dict[tuple[str, str], str] = {}
        """Failures by prefix and item key, or by replica and allocations."""
        self.loading_s = 0.0
        """Start-up seconds of all replicas."""
        self.unloadable: dict[OperatorProcessKey, str] = {}
        self.peaks: dict[OperatorProcessKey, int] = {}
        """Peak resident memory of replicas, in bytes."""
        self.replicas = OperatorProcessPool(self._load, memory_limit_bytes)
        self._processes = shared_processes()
        self._output = output
        self._starts: dict[OperatorProcessKey, list[ReplicaStart]] = {}
        self._reported: dict[tuple[OperatorProcessKey, str], int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop all processes."""
        self.replicas.close()

    def new_starts(self, key: OperatorProcessKey, subject: str) -> Sequence[ReplicaStart]:
        """Return the starts of a replica since the last call for a subject, such as the content hash of its statistics.

        Pipelines that store the statistics under several hashes all get the times of a shared replica.
        """
        starts = self._starts.get(key, [])
        reported, self._reported[key, subject] = self._reported.get((key, subject), 0), len(starts)
        return starts[reported:]

    def _load(self, key: OperatorProcessKey, timeout_s: float) -> OperatorProcess:
        replica = OperatorProcess(self._processes, key, self.module_paths, timeout_s, self._output)
        self._starts.setdefault(key, []).append(ReplicaStart(replica.load_s, replica.startup_s))
        self.loading_s += replica.startup_s
        return replica
