"""Measurement backend of a synthetic pipeline, with simulated time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.workloads.synthetic.pipeline_model import SyntheticModel
from circinus.arrays import FloatArray
from circinus.operators import Item
from circinus.profiling import Dataset, Machine, SimulatedClock
from circinus.profiling.dataset.item_order import measurement_order
from circinus.profiling.dataset.scorer import ItemScorer
from circinus.profiling.measurement.prefix_cache import GreedyDualSize, operators_to_run
from circinus.profiling.measurement.runner import AllocationMeasurement, Measurement, OperatorRuns, ReplicaStats, Runner
from circinus.profiling.store.measurement_keys import CodeVersions, MeasurementKeys
from circinus.specification import Configuration, KnobValues, OperatorSpec, Pipeline

_CACHE_BYTES = 512 * 2**20


class SyntheticSource:
    """`MeasurementBackend` of a `SyntheticModel`; its clock adds up the seconds of running operators."""

    def __init__(self, model: SyntheticModel, clock: SimulatedClock | None = None) -> None:
        """Measure `model`, by default on a clock that starts at 0."""
        self.model = model
        self._clock = clock or SimulatedClock()
        self.runners: list[SyntheticRunner] = []
        """All runners created so far."""

    @property
    def clock(self) -> Callable[[], float]:
        """See `MeasurementBackend.clock`: simulated seconds."""
        return self._clock

    @property
    def machine(self) -> Machine | None:
        """See `MeasurementBackend.machine`."""
        return None

    def addresses(self, pipeline: Pipeline, machine: Machine | None) -> MeasurementKeys:
        """See `MeasurementBackend.addresses`."""
        version = f"synthetic {self.model.seed}"
        operators = {operator.uses: version for operator in pipeline.operators}
        return MeasurementKeys(pipeline, CodeVersions(operators, version, version), machine=machine, origin=version)

    def dataset(self, pipeline: Pipeline, seed: int) -> Dataset:
        """See `MeasurementBackend.dataset`: items without values."""
        items = self.model.items
        keys = [f"item {index}" for index in range(len(items.strata))]
        held_out = pipeline.dataset.held_out_items(len(keys))
        name = f"{pipeline.name} {self.model.seed}"
        return Dataset(
            items=tuple(Item(key, None, None, dict(stratum)) for key, stratum in zip(keys, items.strata, strict=True)),
            order=tuple(measurement_order(items.strata, held_out, np.random.default_rng(seed)).tolist()),
            held_out_items=held_out,
            seed=seed,
            fingerprint=hashlib.sha256(name.encode()).hexdigest(),
            addresses=tuple(hashlib.sha256(f"{name} {key}".encode()).hexdigest() for key in keys),
            input_bytes=tuple(int(size) for size in items.sizes(self.model.input_bytes)),
        )

    def scorer(self, pipeline: Pipeline) -> ItemScorer:
        """See `MeasurementBackend.scorer`."""
        return SyntheticRunner(self.model, self.addresses(pipeline, self.machine), self._clock)

    def runner(self, addresses: MeasurementKeys, *, timeout_s: float) -> AbstractContextManager[Runner]:
        """See `MeasurementBackend.runner`."""
        self.runners.append(SyntheticRunner(self.model, addresses, self._clock))
        return nullcontext(self.runners[-1])


class SyntheticRunner:
    """`Runner` that charges the time of `LocalRunner`.

    A prefix runs once per item while the cache holds its output; an operator loads once per knob values and CPUs.
    """

    def __init__(self, model: SyntheticModel, addresses: MeasurementKeys, clock: SimulatedClock) -> None:
        """Start with nothing loaded and an empty cache."""
        self.items: dict[Configuration, int] = {}
        """Number of measured items of each configuration."""
        self._model, self._addresses, self._clock = model, addresses, clock
        self._topological = addresses.pipeline.topological_order()
        self._index_of = {f"item {number}": number for number in range(len(model.items.strata))}
        self._cache: GreedyDualSize[tuple[str, str]] = GreedyDualSize(_CACHE_BYTES)
        self._loaded: set[tuple[str, KnobValues, float]] = set()
        self._loads: dict[tuple[str, KnobValues], float] = {}
        self._scores = lru_cache(maxsize=256)(model.scores)

    @property
    def cpus(self) -> float:
        """See `Runner.cpus`."""
        return max(cpus for operator in self._topological for cpus in operator.cpus)

    def measure(self, configuration: Configuration, items: Sequence[Item]) -> Measurement:
        """See `Runner.measure`; nothing ever fails."""
        ran_s = self._run(configuration, items, self._addresses.pipeline.sinks())
        self.items[configuration] = self.items.get(configuration, 0) + len(items)
        runs = {
            spec.name: OperatorRuns(
                tuple(self._service_s(spec.name, configuration, items).tolist()),
                tuple(int(size) for size in self._output_bytes(spec.name, configuration, items)),
            )
            for spec in self._topological
        }
        return Measurement(
            runs=runs,
            outputs={sink: (b"",) * len(items) for sink in self._addresses.pipeline.sinks()},
            scores=tuple(self._scores(configuration)[self._indices(items)].tolist()),
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
        """See `Runner.measure_allocations`."""
        spec = self._addresses.pipeline.operator(operator)
        ran_s = self._run(configuration, items, spec.parents)
        for cpus in dict.fromkeys((min(spec.cpus), *(cpus for cpus, _ in allocations))):
            self._load(spec, configuration, cpus)
        values = configuration[operator]
        ratios = {pair: self._model.batch_ratio(operator, values, *pair) for pair in allocations}
        unbatched_s = self._service_s(operator, configuration, items)
        seconds = float(unbatched_s.sum())
        for (_, size), ratio in ratios.items():
            for start in range(0, len(items), size):
                seconds += ratio * float(unbatched_s[np.arange(start, start + size) % len(items)].mean())
        self._clock.advance(seconds)
        return AllocationMeasurement(ratios, self._replica_stats(operator, configuration), ran_s + seconds)

    def scores(
        self, configuration: Configuration, items: Sequence[Item], outputs: Mapping[str, Sequence[bytes]]
    ) -> tuple[float, ...]:
        """See `ItemScorer.scores`; outputs are ignored."""
        of_items = self._scores(configuration)
        return tuple(float(of_items[self._index_of[item.key]]) for item in items)

    def _run(self, configuration: Configuration, items: Sequence[Item], operators: Sequence[str]) -> float:
        """Compute the missing outputs of some operators; return the seconds of processing."""
        missing: dict[str, list[Item]] = {operator.name: [] for operator in self._topological}
        for item in items:

            def is_cached(operator: str, item: Item = item) -> bool:
                return self._cache.touch((self._addresses.output(operator, configuration), item.key))

            for name in operators_to_run(self._topological, operators, is_cached):
                missing[name].append(item)
        ran_s = 0.0
        for spec in self._topological:
            if not missing[spec.name]:
                continue
            self._load(spec, configuration, min(spec.cpus))
            address = self._addresses.output(spec.name, configuration)
            service_s = self._service_s(spec.name, configuration, missing[spec.name])
            sizes = self._output_bytes(spec.name, configuration, missing[spec.name])
            for item, seconds, size in zip(missing[spec.name], service_s.tolist(), sizes.tolist(), strict=True):
                self._cache.add((address, item.key), int(size), seconds)
            ran_s += float(service_s.sum())
        self._clock.advance(ran_s)
        return ran_s

    def _load(self, spec: OperatorSpec, configuration: Configuration, cpus: float) -> None:
        key = spec.name, configuration[spec.name]
        if (*key, cpus) in self._loaded:
            return
        load_s = self._model.operators[spec.name].load_s
        self._loaded.add((*key, cpus))
        self._clock.advance(load_s)
        if cpus == min(spec.cpus):
            self._loads[key] = load_s

    def _replica_stats(self, operator: str, configuration: Configuration) -> ReplicaStats:
        values = configuration[operator]
        load_s = self._loads.pop((operator, values), None)
        loads_s = () if load_s is None else (load_s,)
        return ReplicaStats(loads_s, loads_s, self._model.memory_bytes(operator, values))

    def _service_s(self, operator: str, configuration: Configuration, items: Sequence[Item]) -> FloatArray:
        return np.asarray(self._model.service_s(operator, configuration)[self._indices(items)])

    def _output_bytes(self, operator: str, configuration: Configuration, items: Sequence[Item]) -> FloatArray:
        return np.asarray(self._model.output_bytes(operator, configuration)[self._indices(items)])

    def _indices(self, items: Sequence[Item]) -> NDArray[np.int64]:
        return np.array([self._index_of[item.key] for item in items], dtype=np.int64)
