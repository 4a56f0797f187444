"""Measurement backend of a trace: recorded results, and recorded seconds on a simulated clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from circinus.arrays import IntArray
from circinus.errors import ProfileError
from circinus.operators import Item
from circinus.profiling.dataset.item_order import measurement_order
from circinus.profiling.dataset.items import Dataset
from circinus.profiling.dataset.scorer import ItemScorer, validate_score
from circinus.profiling.hardware.machine import Machine
from circinus.profiling.measurement.prefix_cache import GreedyDualSize, operators_to_run
from circinus.profiling.measurement.runner import (
    AllocationMeasurement,
    Measurement,
    MeasurementError,
    NotRecordedError,
    ReplicaStats,
    Runner,
)
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.profiling.trace.measurement_trace import MeasurementTrace
from circinus.specification import Configuration, KnobValues, OperatorSpec, Pipeline


class SimulatedClock:
    """Clock of recorded seconds for `profile_pipeline`."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s

    def __call__(self) -> float:
        """Return the current time in seconds."""
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Advance by `seconds`, which must not be negative."""
        if not seconds >= 0:
            raise ValueError(f"seconds must be at least 0, got {seconds}")
        self._now_s += seconds


class TraceRunner:
    """`Runner` that charges the time that `LocalRunner` would have taken.

    An operator that ran on an item under the same prefix costs nothing while the prefix cache has its output (same
    capacity, same eviction); loading an operator with its knob values is charged once; warm-up, transport and reloading
    for lack of memory are not charged. Outputs are empty: a trace has none.
    """

    def __init__(
        self,
        trace: MeasurementTrace,
        keys: MeasurementKeys,
        clock: SimulatedClock,
        *,
        cache_bytes: int = PROFILING.cache_bytes,
    ) -> None:
        """Create the runner with nothing loaded or cached."""
        self._trace = trace
        self._keys = keys
        self._pipeline = keys.pipeline
        self._clock = clock
        self._topological = self._pipeline.topological_order()
        self._columns = {operator.name: column for column, operator in enumerate(trace.pipeline.topological_order())}
        self._indexes = {configuration: index for index, configuration in enumerate(trace.configurations)}
        self._items = {key: index for index, key in enumerate(trace.item_keys)}
        self._failures = {failure.configuration: failure for failure in trace.failures}
        self._cache: GreedyDualSize[tuple[str, str]] = GreedyDualSize(cache_bytes)
        self._loaded: set[tuple[str, KnobValues, float]] = set()
        self._unreported: set[tuple[str, KnobValues]] = set()
        """Replicas on the fewest CPUs whose start no measurement has returned yet."""

    @property
    def cpus(self) -> float:
        """Highest recorded number of CPUs (see `Runner.cpus`)."""
        recorded = (cpus for replica in self._trace.replicas.values() for cpus, _ in replica.batch_ratio)
        return max((*recorded, *(min(operator.cpus) for operator in self._pipeline.operators)))

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        self._check(configuration, items)
        ran_s = self._run(configuration, items, self._pipeline.sinks())
        positions = self._positions(items)
        runs = {o.name: self._trace.runs(self._row(o.name, configuration), positions) for o in self._topological}
        return Measurement(
            runs=runs,
            outputs={sink: (b"",) * len(items) for sink in self._pipeline.sinks()},
            scores=self.scores(configuration, items, {}),
            replicas={
                spec.name: self._replica_stats(spec.name, configuration)
                for spec in self._topological
                if (spec.name, configuration[spec.name], min(spec.cpus)) in self._loaded
            },
            compute_s=ran_s,
        )

    def measure_allocations(
        self,
        configuration: Configuration,
        operator: str,
        allocations: Sequence[tuple[float, int]],
        items: Sequence[Item],
    ) -> AllocationMeasurement:
        """Measure the recorded allocations (see `Runner.measure_allocations`); others are omitted, and cost nothing."""
        self._check(configuration, items)
        spec = self._pipeline.operator(operator)
        recorded = self._trace.replicas[operator, configuration[operator]].batch_ratio
        ratios = {pair: recorded[pair] for pair in allocations if pair in recorded}
        if not ratios:
            return AllocationMeasurement({}, self._replica_stats(operator, configuration), 0.0)
        ran_s = self._run(configuration, items, spec.parents)
        for cpus in dict.fromkeys((min(spec.cpus), *(cpus for cpus, _ in ratios))):
            self._load(spec, configuration, cpus)
        unbatched_s = [self._service_s(operator, configuration, item) for item in items]
        seconds = sum(unbatched_s)
        for (_, size), ratio in ratios.items():
            for start in range(0, len(items), size):
                seconds += ratio * sum(unbatched_s[(start + k) % len(items)] for k in range(size)) / size
        self._clock.advance(seconds)
        return AllocationMeasurement(ratios, self._replica_stats(operator, configuration), ran_s + seconds)

    def scores(
        self, configuration: Configuration, items: Sequence[Item], outputs: Mapping[str, Sequence[bytes]]
    ) -> tuple[float, ...]:
        """Return the recorded scores of items; `outputs` are ignored.

        Raises:
            ProfileError: a score is outside the metric's declared range.
        """
        return tuple(self._score(configuration, item) for item in items)

    def _score(self, configuration: Configuration, item: Item) -> float:
        recorded = float(self._trace.scores[self._indexes[configuration], self._items[item.key]])
        low, high = self._pipeline.metric.range
        value = validate_score(recorded, (low, high))
        if value is None:
            raise ProfileError(
                f"score for item {item.key} under configuration {configuration} must be in the range "
                f"[{low:g}, {high:g}] of metric {self._pipeline.metric.name}, got {recorded}",
                code="metric.score_out_of_range",
                location=f"trace of pipeline {self._pipeline.name}",
                hint="Widen the range, or record the trace again.",
            )
        return value

    def _check(self, configuration: Configuration, items: Sequence[Item]) -> None:
        """Raise for missing recordings and for recorded failures."""
        pipeline = self._pipeline.name
        failure = self._failures.get(configuration)
        if failure is not None and (failure.item_key is None or failure.item_key in {item.key for item in items}):
            reason = f"{failure.reason} (as recorded)"
            raise MeasurementError(reason, pipeline, configuration, failure.item_key, code="trace.recorded_failure")
        if configuration not in self._indexes:
            raise NotRecordedError(pipeline, configuration, items[0].key, ())
        index, columns = self._indexes[configuration], self._positions(items)
        is_recorded = np.isfinite(self._trace.scores[index, columns])
        for row in self._trace.rows[index]:
            is_recorded &= np.isfinite(self._trace.service_s[row, columns] + self._trace.output_bytes[row, columns])
        if not is_recorded.all():
            recorded = tuple(item for item, has_run in zip(items, is_recorded, strict=True) if has_run)
            raise NotRecordedError(pipeline, configuration, items[int(np.argmin(is_recorded))].key, recorded)

    def _run(self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]) -> float:
        """Charge the missing outputs of the given operators, and return the seconds of processing."""
        missing: dict[str, list[Item]] = {operator.name: [] for operator in self._topological}
        for item in items:

            def is_cached(operator: str, item: Item = item) -> bool:
                return self._cache.touch((self._keys.output(operator, configuration), item.key))

            for name in operators_to_run(self._topological, operators, is_cached):
                missing[name].append(item)
        ran_s = 0.0
        for spec in self._topological:
            prefix = self._keys.output(spec.name, configuration)
            for item in missing[spec.name]:
                self._load(spec, configuration, min(spec.cpus))
                service_s = self._service_s(spec.name, configuration, item)
                self._cache.add((prefix, item.key), self._output_bytes(spec.name, configuration, item), service_s)
                ran_s += service_s
        self._clock.advance(ran_s)
        return ran_s

    def _load(self, spec: OperatorSpec, configuration: Configuration, cpus: float) -> None:
        key = spec.name, configuration[spec.name]
        if (*key, cpus) in self._loaded:
            return
        self._loaded.add((*key, cpus))
        self._clock.advance(self._trace.replicas[key].effective_startup_s)
        if cpus == min(spec.cpus):
            self._unreported.add(key)

    def _replica_stats(self, operator: str, configuration: Configuration) -> ReplicaStats:
        key = operator, configuration[operator]
        replica = self._trace.replicas[key]
        if key not in self._unreported:
            return ReplicaStats((), (), int(replica.peak_memory_bytes))
        self._unreported.remove(key)
        return ReplicaStats((replica.load_s,), (replica.effective_startup_s,), int(replica.peak_memory_bytes))

    def _positions(self, items: Sequence[Item]) -> IntArray:
        return np.array([self._items[item.key] for item in items], dtype=np.int64)

    def _service_s(self, operator: str, configuration: Configuration, item: Item) -> float:
        return float(self._trace.service_s[self._row(operator, configuration), self._items[item.key]])

    def _output_bytes(self, operator: str, configuration: Configuration, item: Item) -> int:
        return int(self._trace.output_bytes[self._row(operator, configuration), self._items[item.key]])

    def _row(self, operator: str, configuration: Configuration) -> int:
        return int(self._trace.rows[self._indexes[configuration], self._columns[operator]])


class TraceBackend:
    """`MeasurementBackend` on a trace: needs neither operators nor item values, and its clock counts recorded time.

    Its measurements may share a store with real ones: they share no key with these, nor with those of other traces.
    """

    def __init__(self, trace: MeasurementTrace, clock: SimulatedClock | None = None) -> None:
        """Measure from `trace`; the default clock starts at 0."""
        self.trace = trace
        self._clock = clock or SimulatedClock()

    @property
    def clock(self) -> Callable[[], float]:
        """Clock of recorded seconds."""
        return self._clock

    @property
    def machine(self) -> Machine | None:
        return self.trace.machine

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        self.trace.check(pipeline)
        code = CodeVersions.recorded(pipeline, self.trace.code_versions)
        return MeasurementKeys(pipeline, code, machine=machine, origin=f"trace {self.trace.digest}")

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """Return the data set with keys, strata and sizes, without values (see `MeasurementBackend.dataset`)."""
        trace = self.trace
        held_out = pipeline.dataset.held_out_items(len(trace.item_keys))
        order = measurement_order(trace.strata, held_out, np.random.default_rng(seed))
        return Dataset(
            items=tuple(Item(key, None, None, dict(s)) for key, s in zip(trace.item_keys, trace.strata, strict=True)),
            order=tuple(order.tolist()),
            held_out_items=held_out,
            seed=seed,
            fingerprint=trace.dataset_fingerprint,
            addresses=trace.item_addresses,
            input_bytes=tuple(int(size) for size in trace.input_bytes),
        )

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """Return a scorer with the recorded scores (see `MeasurementBackend.scorer`)."""
        return TraceRunner(self.trace, self.addresses(pipeline, self.machine), self._clock)

    def runner(self, keys: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        return nullcontext(TraceRunner(self.trace, keys, self._clock))
