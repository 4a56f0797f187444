"""Measuring what batches and CPUs gain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from circinus.arrays import IntArray
from circinus.profiling.batch_time_ratios import allowed_allocations, measured_allocations
from circinus.profiling.budget import TimeBudget
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator
from circinus.profiling.observer import ProfileObserver
from circinus.profiling.profile import FailedConfiguration
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.profiling.store.profile_store import ProfileStore
from circinus.profiling.store.store_queries import read_allocations
from circinus.specification import Configuration, KnobValues

_ITEMS = 2
"""Items that batches are made of; smaller data sets and larger batches repeat them."""


@dataclass(frozen=True)
class _Task:
    operator: str
    knobs: KnobValues
    allocations: tuple[tuple[float, int], ...]
    configuration: Configuration
    """One that has the operator with these knobs and was measured."""
    seconds: float
    """Estimate."""


class AllocationProfiler:
    """The allocations that the operators may be given and that nobody has measured yet."""

    def __init__(
        self,
        store: ProfileStore,
        addresses: MeasurementKeys,
        measurer: Measurer,
        order: IntArray,
        standings: ConfigurationRace,
        pace: MeasurementTimeEstimator,
        budget: TimeBudget,
        observer: ProfileObserver,
    ) -> None:
        self._store = store
        self._addresses = addresses
        self._measurer = measurer
        self._order = order
        self._standings = standings
        self._pace = pace
        self._budget = budget
        self._observer = observer
        self._broken: set[tuple[str, KnobValues]] = set()

    def measure(self, limit_s: float, tell: Callable[[Configuration], None]) -> None:
        """Measure what is missing, the cheapest first, as far as `limit_s` seconds go.

        An operator that fails in a batch is told to the observer and keeps the ratios of no gain, as allocations of
        more CPUs than there are do.

        Args:
            limit_s: seconds, at most what the budget leaves.
            tell: called after each operator.
        """
        began_s = self._budget.elapsed_s
        for task in self._missing():
            left_s = min(limit_s - (self._budget.elapsed_s - began_s), self._budget.remaining_s)
            if task.seconds > left_s:
                return
            before_s = self._budget.elapsed_s
            indexes = self._order[: min(_ITEMS, self._standings.items(task.configuration))].tolist()
            try:
                found = self._measurer.measure_allocations(task.configuration, task.operator, task.allocations, indexes)
            except MeasurementError as error:
                self._broken.add((task.operator, task.knobs))
                reason = f"{error.reason} (as one of the allocations {_said(task.allocations)})"
                self._observer.failed(FailedConfiguration(task.configuration, error.item_key, reason))
                continue
            self._pace.spent(found.compute_s, self._budget.elapsed_s - before_s)
            tell(task.configuration)

    def _missing(self) -> list[_Task]:
        tasks: dict[tuple[str, KnobValues], _Task] = {}
        for configuration in self._standings.configurations:
            if self._standings.failed(configuration) or not self._standings.items(configuration):
                continue
            for operator in self._addresses.pipeline.operators:
                key = operator.name, configuration[operator.name]
                if key in tasks or key in self._broken:
                    continue
                allocations = self._unmeasured(*key)
                if allocations:
                    seconds = self._estimate_s(operator.name, configuration, allocations)
                    tasks[key] = _Task(*key, allocations, configuration, seconds)
        return sorted(tasks.values(), key=lambda task: task.seconds)

    def _unmeasured(self, operator: str, knobs: KnobValues) -> tuple[tuple[float, int], ...]:
        allowed = allowed_allocations(self._addresses.pipeline.operator(operator))
        if len(allowed) == 1:
            return ()
        known = self._store.existing_ids([self._addresses.replica(operator, knobs)])
        found = read_allocations(self._store, list(known.values()))
        measured = measured_allocations(allowed, next(iter(found.values()), {}))
        # With fewer CPUs than it names, an allocation's ratio would stand in the store as if it had been measured.
        return tuple(pair for pair in allowed if pair not in measured and pair[0] <= self._measurer.cpus)

    def _estimate_s(
        self, operator: str, configuration: Configuration, allocations: tuple[tuple[float, int], ...]
    ) -> float:
        items = min(_ITEMS, self._standings.items(configuration))
        runs = items + sum(-(-items // size) * size for _, size in allocations)
        warm_ups = sum(dict(allocations).values())
        service_s = self._pace.service_s(operator, configuration) or 0.0
        return (runs + warm_ups) * service_s * self._pace.overhead


def _said(allocations: tuple[tuple[float, int], ...]) -> str:
    return ", ".join(f"{cpus:g} CPUs x batch {size}" for cpus, size in allocations)
