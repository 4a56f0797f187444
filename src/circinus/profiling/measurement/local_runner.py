"""Measuring on this machine: every operator in a process of its own, outputs kept by prefix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from circinus.operators import Item
from circinus.profiling.dataset.scorer import Scorer
from circinus.profiling.measurement.operator_process import (
    BatchRun,
    OperatorProcess,
    OperatorProcessError,
    OperatorProcessKey,
    OperatorProcessPool,
)
from circinus.profiling.measurement.pickling import pickle_value
from circinus.profiling.measurement.prefix_cache import PrefixCache, operators_to_run
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    OperatorRuns,
    OperatorsMeasurement,
    ReplicaStats,
)
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Configuration, OperatorSpec

_CACHE_BYTES = 512 * 2**20
_TIMEOUT_S = 600.0


class _Start(NamedTuple):
    load_s: float
    startup_s: float


class _Run(NamedTuple):
    service_s: float
    output_bytes: int


class LocalRunner:
    """Measures a pipeline's configurations on this machine.

    A process holds one operator with its knobs, as a replica in service does: a crash or a leak harms nothing else,
    and load time and resident memory (Linux: the kernel's high-water mark) are a replica's. Processes are kept
    while they fit in memory. An operator whose fewest CPUs are more than the machine has
    is measured with all it has: it would hardly take longer with more.
    """

    def __init__(
        self,
        addresses: MeasurementKeys,
        module_paths: Sequence[Path],
        *,
        cache_bytes: int = _CACHE_BYTES,
        spill_bytes: int = 0,
        memory_limit_bytes: float | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """Start nothing yet.

        Args:
            addresses: of the pipeline's measurements.
            module_paths: where its operators are found.
            cache_bytes: bound of the prefix cache in memory.
            spill_bytes: bound of what it puts on disk besides; 0: nothing.
            memory_limit_bytes: bound of all loaded operators, see `Replicas`.
            timeout_s: an operator that takes longer to load or to process a batch has failed.

        Raises:
            OperatorError: the metric is not found.
        """
        self._scorer = Scorer(addresses.pipeline, module_paths)
        self.cache = PrefixCache(cache_bytes, spill_bytes=spill_bytes)
        self._addresses = addresses
        self._pipeline = addresses.pipeline
        self._topological = self._pipeline.topological_order()
        self._module_paths = tuple(module_paths)
        self._timeout_s = timeout_s
        self._replicas = OperatorProcessPool(self._load, memory_limit_bytes)
        self._runs: dict[tuple[str, str], _Run] = {}
        self._failures: dict[tuple[str, str], str] = {}
        self._unloadable: dict[OperatorProcessKey, str] = {}
        self._starts: dict[OperatorProcessKey, list[_Start]] = {}
        self._peaks: dict[OperatorProcessKey, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End every process that was started, and remove what is on disk."""
        self._replicas.close()
        self.cache.close()

    @property
    def cpus(self) -> float:
        """See `Runner.cpus`."""
        return available_cpus()

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """See `Runner.measure`."""
        outputs, ran_s = self._outputs(configuration, items, self._pipeline.sinks())
        runs = {
            operator.name: [
                self._runs[self._addresses.output(operator.name, configuration), item.key] for item in items
            ]
            for operator in self._topological
        }
        needed_s = sum(run.service_s for its_runs in runs.values() for run in its_runs)
        saved_s = max(0.0, needed_s - ran_s)
        self.cache.record_savings(saved_s)
        sinks = self._pipeline.sinks()
        return Measurement(
            runs=_operator_runs(runs),
            outputs={sink: tuple(outputs[sink, item.key] for item in items) for sink in sinks},
            scores=tuple(
                self._scorer.score(configuration, item, {sink: outputs[sink, item.key] for sink in sinks})
                for item in items
            ),
            replicas=self._facts(configuration),
            compute_s=ran_s,
            saved_s=saved_s,
        )

    def measure_operators(
        self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]
    ) -> OperatorsMeasurement:
        """See `OperatorRunner.measure_operators`."""
        _, ran_s = self._outputs(configuration, items, operators)
        lineages = {name for operator in operators for name in (*self._pipeline.ancestors(operator), operator)}
        runs = {
            name: [self._runs[self._addresses.output(name, configuration), item.key] for item in items]
            for name in lineages
        }
        return OperatorsMeasurement(
            runs=_operator_runs(runs),
            replicas={name: facts for name, facts in self._facts(configuration).items() if name in lineages},
            compute_s=ran_s,
        )

    def answers(self, configuration: Configuration, items: Sequence[Item]) -> Mapping[str, tuple[bytes, ...]]:
        """What a configuration answers, where nothing is to be scored or timed.

        Args:
            configuration: of the pipeline.
            items: n of them; no truth is looked at.

        Returns:
            By sink: (n,) its outputs, packed.

        Raises:
            MeasurementError: an operator failed.
        """
        sinks = self._pipeline.sinks()
        outputs, _ = self._outputs(configuration, items, sinks)
        return {sink: tuple(outputs[sink, item.key] for item in items) for sink in sinks}

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """See `Runner.measure_allocations`.

        The single items are measured again next to the batches, so that both see the machine in the same state.
        Where there are fewer items than a batch holds, they are repeated.
        """
        spec = self._pipeline.operator(operator)
        inputs, ran_s = self._outputs(configuration, items, spec.after)
        rows = [[inputs[parent, item.key] for parent in spec.after] or [pickle_value(item.value)] for item in items]
        alone = [
            self._process(spec, configuration, min(spec.cpus), [row], item).service_s
            for row, item in zip(rows, items, strict=True)
        ]
        ran_s += sum(alone)
        ratios = {}
        for cpus, size in allocations:
            batch_s, alone_s = 0.0, 0.0
            for first in range(0, len(rows), size):
                chosen = [(first + k) % len(rows) for k in range(size)]
                batch = [rows[i] for i in chosen]
                batch_s += self._process(spec, configuration, cpus, batch, items[first]).service_s
                alone_s += sum(alone[i] for i in chosen) / size
            ratios[cpus, size] = batch_s / max(alone_s, 1e-9)
            ran_s += batch_s
        keys = {self._key(spec, configuration, cpus) for cpus in (min(spec.cpus), *(c for c, _ in allocations))}
        facts = self._replica_facts(self._key(spec, configuration, min(spec.cpus)))
        return AllocationMeasurement(
            ratios, replace(facts, peak_memory_bytes=max(self._peaks[key] for key in keys)), ran_s
        )

    def _outputs(
        self, configuration: Configuration, items: Sequence[Item], wanted: Sequence[str]
    ) -> tuple[Mapping[tuple[str, str], bytes], float]:
        """(operator, item key) -> output of the wanted operators, and the seconds it took to compute what was missing.

        Operator by operator, so that few have to be loaded at a time.
        """
        held: dict[tuple[str, str], bytes] = {}
        missing: dict[str, list[Item]] = {operator.name: [] for operator in self._topological}
        for item in items:

            def holds(operator: str, item: Item = item) -> bool:
                output = self.cache.get(self._addresses.output(operator, configuration), item.key)
                if output is not None:
                    held[operator, item.key] = output
                return output is not None

            for name in operators_to_run(self._topological, wanted, holds):
                missing[name].append(item)
        ran_s = 0.0
        for operator in self._topological:
            for item in missing[operator.name]:
                row = [held[parent, item.key] for parent in operator.after] or [pickle_value(item.value)]
                run = self._run(operator, configuration, row, item)
                held[operator.name, item.key] = run.outputs[0]
                ran_s += run.service_s
        return held, ran_s

    def _run(self, spec: OperatorSpec, configuration: Configuration, row: Sequence[bytes], item: Item) -> BatchRun:
        """Run an operator on one item and keep what it brought."""
        address = self._addresses.output(spec.name, configuration)
        if (address, item.key) in self._failures:
            raise self._error(spec, configuration, item, self._failures[address, item.key])
        try:
            run = self._process(spec, configuration, min(spec.cpus), [row], item)
        except MeasurementError as error:
            self._failures[address, item.key] = error.reason
            raise
        self.cache.put(address, item.key, run.outputs[0], run.service_s)
        self._runs[address, item.key] = _Run(run.service_s, len(run.outputs[0]))
        return run

    def _process(
        self,
        spec: OperatorSpec,
        configuration: Configuration,
        cpus: float,
        batch: Sequence[Sequence[bytes]],
        item: Item,
    ) -> BatchRun:
        key = self._key(spec, configuration, cpus)
        if key in self._unloadable:
            raise self._error(spec, configuration, None, self._unloadable[key])
        try:
            replica = self._replicas.get(key)
        except OperatorProcessError as error:
            self._unloadable[key] = f"operator {spec.name} ({spec.uses}) cannot be loaded: {error}"
            raise self._error(spec, configuration, None, self._unloadable[key]) from error
        try:
            run = replica.process(batch)
        except OperatorProcessError as error:
            if not replica.alive:
                self._replicas.discard(key)
            raise self._error(spec, configuration, item, f"operator {spec.name} ({spec.uses}): {error}") from error
        self._peaks[key] = max(self._peaks.get(key, 0), replica.peak_memory_bytes)
        return run

    def _load(self, key: OperatorProcessKey) -> OperatorProcess:
        replica = OperatorProcess(key, self._addresses.code.operators[key.uses], self._module_paths, self._timeout_s)
        self._starts.setdefault(key, []).append(_Start(replica.load_s, replica.startup_s))
        return replica

    def _key(self, spec: OperatorSpec, configuration: Configuration, cpus: float) -> OperatorProcessKey:
        return OperatorProcessKey(spec.uses, configuration[spec.name], min(cpus, available_cpus()))

    def _facts(self, configuration: Configuration) -> Mapping[str, ReplicaStats]:
        found = {}
        for spec in self._topological:
            key = self._key(spec, configuration, min(spec.cpus))
            if key in self._peaks:
                found[spec.name] = self._replica_facts(key)
        return found

    def _replica_facts(self, key: OperatorProcessKey) -> ReplicaStats:
        """Of its starts those that were not told before."""
        starts = self._starts.pop(key, [])
        return ReplicaStats(
            tuple(start.load_s for start in starts), tuple(start.startup_s for start in starts), self._peaks[key]
        )

    def _error(
        self, spec: OperatorSpec, configuration: Configuration, item: Item | None, reason: str
    ) -> MeasurementError:
        where = f"pipeline {self._pipeline.name}, configuration {configuration}"
        if item is not None:
            where += f", item {item.key}"
        return MeasurementError(f"{where}: {reason}", configuration, item.key if item else None, reason)


def _operator_runs(runs: Mapping[str, Sequence[_Run]]) -> dict[str, OperatorRuns]:
    return {
        name: OperatorRuns(tuple(run.service_s for run in its_runs), tuple(run.output_bytes for run in its_runs))
        for name, its_runs in runs.items()
    }


def available_cpus() -> float:
    """CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return float(len(os.sched_getaffinity(0)))
    return float(os.cpu_count() or 1)
