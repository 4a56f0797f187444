"""Measurement of the batch time ratios of allocations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from circinus.arrays import IntArray
from circinus.profiling.batch_time_ratios import allowed_allocations, measured_allocations
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator
from circinus.profiling.observer import ProfileObserver, TimeBudget
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.settings import PROFILING
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_replicas
from circinus.specification import Configuration, KnobValues


@dataclass(frozen=True)
class _Task:
    operator: str
    knobs: KnobValues
    allocations: tuple[tuple[float, int], ...]
    configuration: Configuration
    """Measured configuration that has the operator with these knob values, and reaches it."""
    items: Sequence[int]
    """Indexes of items that reach it."""
    seconds: float
    """Estimated duration."""


class AllocationProfiler:
    """Profiler of the allowed allocations that are not measured yet."""

    def __init__(
        self,
        store: ProfileStore,
        keys: MeasurementKeys,
        measurer: Measurer,
        order: IntArray,
        race: ConfigurationRace,
        pace: MeasurementTimeEstimator,
        budget: TimeBudget,
        observer: ProfileObserver,
    ) -> None:
        self._store = store
        self._keys = keys
        self._measurer = measurer
        self._order = order
        self._race = race
        self._time_estimator = pace
        self._budget = budget
        self._observer = observer
        self._broken: set[tuple[str, KnobValues]] = set()

    def measure(self, limit_s: float, on_operator: Callable[[Configuration], None]) -> None:
        """Measure the missing allocations, the cheapest first, for at most `limit_s` seconds.

        An operator that fails in a batch is reported to the observer and keeps ratios without gain, as do allocations
        with more CPUs than available.
        """
        started_s = self._budget.elapsed_s
        for task in self._missing():
            remaining_s = min(limit_s - (self._budget.elapsed_s - started_s), self._budget.remaining_s)
            if task.seconds > remaining_s:
                return
            begin_s = self._budget.elapsed_s
            try:
                measured = self._measurer.measure_allocations(
                    task.configuration, task.operator, task.allocations, task.items
                )
            except MeasurementError as error:
                self._broken.add((task.operator, task.knobs))
                reason = f"{error.message} (as one of the allocations {_joined(task.allocations)})"
                self._observer.failed(FailedConfiguration(task.configuration, error.item_key, reason))
                continue
            elapsed_s = self._budget.elapsed_s - begin_s
            self._time_estimator.add_elapsed(measured.compute_s, [measured.replica], elapsed_s, measured.elapsed)
            on_operator(task.configuration)

    def _missing(self) -> list[_Task]:
        tasks: dict[tuple[str, KnobValues], _Task] = {}
        for configuration in self._race.configurations:
            if self._race.failed(configuration) or not self._race.items(configuration):
                continue
            for operator in self._keys.pipeline.operators:
                key = operator.name, configuration[operator.name]
                if key in tasks or key in self._broken:
                    continue
                allocations = self._unmeasured(*key)
                if allocations and (items := self._items(operator.name, configuration)):
                    seconds = self._estimate_s(operator.name, configuration, allocations)
                    tasks[key] = _Task(*key, allocations, configuration, items, seconds)
        return sorted(tasks.values(), key=lambda task: task.seconds)

    def _items(self, operator: str, configuration: Configuration) -> Sequence[int]:
        """Return the first items that reach an operator, without which its allocations cannot be measured."""
        measured = self._order[: self._race.items(configuration)].tolist()
        return self._measurer.reached(configuration, operator, measured)[: PROFILING.allocation_items]

    def _unmeasured(self, operator: str, knobs: KnobValues) -> tuple[tuple[float, int], ...]:
        allowed = allowed_allocations(self._keys.pipeline.operator(operator))
        if len(allowed) == 1:
            return ()
        stored = read_replicas(self._store, [self._keys.replica(operator, knobs)])
        measured = measured_allocations(allowed, next((replica.batch_ratio for replica in stored.values()), {}))
        # A ratio measured with fewer CPUs than the allocation has would be stored as if it were valid.
        return tuple(pair for pair in allowed if pair not in measured and pair[0] <= self._measurer.cpus)

    def _estimate_s(
        self, operator: str, configuration: Configuration, allocations: tuple[tuple[float, int], ...]
    ) -> float:
        items = min(PROFILING.allocation_items, self._race.items(configuration))
        runs = items + sum(-(-items // size) * size for _, size in allocations)
        warm_ups = sum(dict(allocations).values())
        service_s = self._time_estimator.service_s(operator, configuration) or 0.0
        return (runs + warm_ups) * service_s * self._time_estimator.overhead


def _joined(allocations: tuple[tuple[float, int], ...]) -> str:
    return ", ".join(f"{cpus:g} CPUs x batch {size}" for cpus, size in allocations)
