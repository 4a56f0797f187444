"""Measuring on a trace: recorded results, and recorded seconds on a simulated clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling.dataset.scorer import validate_score
from circinus.profiling.measurement.prefix_cache import GreedyDualSize, operators_to_run
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    NotRecordedError,
    OperatorRuns,
    ReplicaStats,
)
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.specification import Configuration, KnobValues, OperatorSpec


class SimulatedClock:
    """A clock for `profile_pipeline` that counts recorded seconds."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Begin at `now_s`."""
        self._now_s = now_s

    def __call__(self) -> float:
        """Seconds now."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, which must not be negative."""
        if not seconds >= 0:
            raise ValueError(f"found {seconds} seconds to pass, expected at least 0")
        self._now_s += seconds


_CACHE_BYTES = 512 * 2**20


class TraceRunner:
    """A `Runner` that charges what `LocalRunner` would have taken.

    An operator that ran on an item under the same prefix costs nothing while the prefix cache holds its output (same
    bound, same eviction); loading an operator with its knobs is charged once; warming it up, transport and reloading
    for want of memory are not charged. Outputs are empty: a trace has none.
    """

    def __init__(
        self,
        trace: MeasurementTrace,
        addresses: MeasurementKeys,
        clock: SimulatedClock,
        *,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        """Begin with nothing loaded and nothing kept.

        Args:
            trace: of the pipeline of `addresses` (`Trace.check`).
            addresses: of the pipeline's measurements.
            clock: is advanced by the seconds that measuring would have taken.
            cache_bytes: bound of the prefix cache.
        """
        self.saved_s = 0.0
        """Seconds of processing that the prefix cache saved, in all."""
        self._trace = trace
        self._addresses = addresses
        self._pipeline = addresses.pipeline
        self._clock = clock
        self._topological = self._pipeline.topological_order()
        self._columns = {operator.name: column for column, operator in enumerate(trace.operators)}
        self._indexes = {configuration: index for index, configuration in enumerate(trace.configurations)}
        self._items = {key: index for index, key in enumerate(trace.item_keys)}
        self._failures = {failure.configuration: failure for failure in trace.failures}
        self._cache: GreedyDualSize[tuple[str, str]] = GreedyDualSize(cache_bytes)
        self._loaded: set[tuple[str, KnobValues, float]] = set()
        self._untold: set[tuple[str, KnobValues]] = set()
        """Whose start on the fewest CPUs no measurement has brought back yet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    @property
    def cpus(self) -> float:
        """See `Runner.cpus`: the most that anything was recorded with."""
        recorded = (cpus for replica in self._trace.replicas.values() for cpus, _ in replica.batch_ratio)
        return max((*recorded, *(operator.cpus for operator in self._trace.operators)))

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """See `Runner.measure`."""
        self._check(configuration, items)
        ran_s = self._run(configuration, items, self._pipeline.sinks())
        runs = {
            spec.name: OperatorRuns(
                tuple(self._service_s(spec.name, configuration, item) for item in items),
                tuple(self._output_bytes(spec.name, configuration, item) for item in items),
            )
            for spec in self._topological
        }
        saved_s = max(0.0, sum(sum(its_runs.service_s) for its_runs in runs.values()) - ran_s)
        self.saved_s += saved_s
        return Measurement(
            runs=runs,
            outputs={sink: (b"",) * len(items) for sink in self._pipeline.sinks()},
            scores=tuple(self.score(configuration, item, {}) for item in items),
            replicas={
                spec.name: self._facts(spec.name, configuration)
                for spec in self._topological
                if (spec.name, configuration[spec.name], min(spec.cpus)) in self._loaded
            },
            compute_s=ran_s,
            saved_s=saved_s,
        )

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """See `Runner.measure_allocations`; allocations that were not recorded are left out, and cost nothing."""
        self._check(configuration, items)
        spec = self._pipeline.operator(operator)
        recorded = self._trace.replicas[operator, configuration[operator]].batch_ratio
        ratios = {pair: recorded[pair] for pair in allocations if pair in recorded}
        if not ratios:
            return AllocationMeasurement({}, self._facts(operator, configuration), 0.0)
        ran_s = self._run(configuration, items, spec.after)
        for cpus in dict.fromkeys((min(spec.cpus), *(cpus for cpus, _ in ratios))):
            self._load(spec, configuration, cpus)
        alone_s = [self._service_s(operator, configuration, item) for item in items]
        seconds = sum(alone_s)
        for (_, size), ratio in ratios.items():
            for first in range(0, len(items), size):
                seconds += ratio * sum(alone_s[(first + k) % len(items)] for k in range(size)) / size
        self._clock.advance(seconds)
        return AllocationMeasurement(ratios, self._facts(operator, configuration), ran_s + seconds)

    def score(self, configuration: Configuration, item: Item, outputs: Mapping[str, bytes]) -> float:
        """The recorded score of an item, whatever the outputs.

        Raises:
            ProfileError: it is not in the range that the metric declares.
        """
        found = float(self._trace.scores[self._indexes[configuration], self._items[item.key]])
        low, high = self._pipeline.metric.range
        value = validate_score(found, (low, high))
        if value is None:
            raise ProfileError(
                f"trace of pipeline {self._pipeline.name}: found the score {found} for item {item.key} under "
                f"configuration {configuration}, expected a number within the range [{low:g}, {high:g}] of metric "
                f"{self._pipeline.metric.name}; widen the range, or record again"
            )
        return value

    def _check(self, configuration: Configuration, items: Sequence[Item]) -> None:
        """Raise for what was not recorded, and for what had failed when it was."""
        where = f"pipeline {self._pipeline.name}, configuration {configuration}"
        failure = self._failures.get(configuration)
        if failure is not None and (failure.item_key is None or failure.item_key in {item.key for item in items}):
            reason = f"{failure.reason} (as recorded)"
            raise MeasurementError(f"{where}: {reason}", configuration, failure.item_key, reason)
        if configuration not in self._indexes:
            raise NotRecordedError(where, configuration, items[0].key, ())
        index = self._indexes[configuration]
        numbers = [self._items[item.key] for item in items]
        known = np.isfinite(self._trace.scores[index, numbers])
        for row in self._trace.rows[index]:
            known &= np.isfinite(self._trace.service_s[row, numbers] + self._trace.output_bytes[row, numbers])
        if not known.all():
            recorded = tuple(item for item, is_known in zip(items, known, strict=True) if is_known)
            raise NotRecordedError(where, configuration, items[int(np.argmin(known))].key, recorded)

    def _run(self, configuration: Configuration, items: Sequence[Item], wanted: Sequence[str]) -> float:
        """Let the missing outputs of the wanted operators be computed; gives the seconds of processing."""
        missing: dict[str, list[Item]] = {operator.name: [] for operator in self._topological}
        for item in items:

            def holds(operator: str, item: Item = item) -> bool:
                return self._cache.touch((self._addresses.output(operator, configuration), item.key))

            for name in operators_to_run(self._topological, wanted, holds):
                missing[name].append(item)
        ran_s = 0.0
        for spec in self._topological:
            address = self._addresses.output(spec.name, configuration)
            for item in missing[spec.name]:
                self._load(spec, configuration, min(spec.cpus))
                service_s = self._service_s(spec.name, configuration, item)
                self._cache.add((address, item.key), self._output_bytes(spec.name, configuration, item), service_s)
                ran_s += service_s
        self._clock.advance(ran_s)
        return ran_s

    def _load(self, spec: OperatorSpec, configuration: Configuration, cpus: float) -> None:
        key = spec.name, configuration[spec.name]
        if (*key, cpus) in self._loaded:
            return
        self._loaded.add((*key, cpus))
        self._clock.advance(self._trace.replicas[key].whole_start_s)
        if cpus == min(spec.cpus):
            self._untold.add(key)

    def _facts(self, operator: str, configuration: Configuration) -> ReplicaStats:
        key = operator, configuration[operator]
        replica = self._trace.replicas[key]
        if key not in self._untold:
            return ReplicaStats((), (), replica.peak_memory_bytes)
        self._untold.remove(key)
        return ReplicaStats((replica.load_s,), (replica.whole_start_s,), replica.peak_memory_bytes)

    def _service_s(self, operator: str, configuration: Configuration, item: Item) -> float:
        return float(self._trace.service_s[self._row(operator, configuration), self._items[item.key]])

    def _output_bytes(self, operator: str, configuration: Configuration, item: Item) -> int:
        return int(self._trace.output_bytes[self._row(operator, configuration), self._items[item.key]])

    def _row(self, operator: str, configuration: Configuration) -> int:
        return int(self._trace.rows[self._indexes[configuration], self._columns[operator]])
