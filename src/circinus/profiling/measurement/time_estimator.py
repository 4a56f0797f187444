"""Prediction of the duration of measurements."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np

from circinus.profiling.measurement.runner import ElapsedTimes, Measurement, ReplicaStats
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Configuration, Pipeline, prefix_configuration


def measurement_cost_model(pipeline: Pipeline, profile: PipelineProfile) -> Callable[[Configuration, int], float]:
    """Return a function (configuration, items) -> processing seconds until it is measured on this many items.

    An operator's seconds are its mean under the same prefix, else with the same knob values, else with any. In contrast
    to `MeasurementTimeEstimator`, which keeps budgets, the model ignores the prefix cache and overheads: these differ
    between runs, and decisions must follow from the measurements alone.
    """
    by_prefix: dict[tuple[str, Configuration], float] = {}
    for measured in profile.configurations:
        for name, operator in measured.operators.items():
            by_prefix[name, operator.prefix] = float(operator.service_s.mean())
    groups: defaultdict[Hashable, list[float]] = defaultdict(list)
    for (name, its_prefix), mean_s in sorted(by_prefix.items()):
        groups[name, its_prefix[name]].append(mean_s)
        groups[name].append(mean_s)
    means = {key: float(np.mean(group_s)) for key, group_s in groups.items()}
    items_of = {measured.configuration: len(measured.items) for measured in profile.configurations}

    def operator_s(name: str, configuration: Configuration) -> float:
        own = by_prefix.get((name, prefix_configuration(pipeline, configuration, name)))
        return means.get((name, configuration[name]), means.get(name, 0.0)) if own is None else own

    @cache
    def item_s(configuration: Configuration) -> float:
        return sum(operator_s(operator.name, configuration) for operator in pipeline.operators)

    def seconds(configuration: Configuration, items: int) -> float:
        return max(items - items_of.get(configuration, 0), 0) * item_s(configuration)

    return seconds


class MeasurementTimeEstimator:
    """Estimator of the duration of measuring a configuration.

    An operator's seconds are its mean under the same prefix, else with the same knob values, else with any. Cached
    prefixes cost nothing. Loading, warm-up and transport are covered by the ratio of elapsed to processing seconds,
    which is large at first and therefore conservative.
    """

    def __init__(self, keys: MeasurementKeys) -> None:
        self._keys = keys
        self._observed_s: dict[str, tuple[float, int]] = {}
        self._items: dict[str, int] = {}
        self._levels_of: dict[Configuration, Mapping[str, tuple[str, str, str]]] = {}
        self._elapsed_s = 0.0
        self._ran_s = 0.0
        self.operators_s = 0.0
        """Seconds of the measurements in operators."""
        self.loading_s = 0.0
        """Start-up seconds of operators in the measurements."""

    def add_service_times(self, configuration: Configuration, service_s: Mapping[str, Sequence[float]]) -> None:
        """Add measured service times by operator, of this or an earlier run."""
        for name, seconds in service_s.items():
            for key in self._levels(configuration)[name]:
                total_s, count = self._observed_s.get(key, (0.0, 0))
                self._observed_s[key] = sum(seconds, total_s), count + len(seconds)

    def measured(self, configuration: Configuration, items: int, measurement: Measurement, elapsed_s: float) -> None:
        """Add an increment that brought a configuration to `items` items and took `elapsed_s`."""
        self.add_service_times(configuration, {name: runs.service_s for name, runs in measurement.runs.items()})
        for name in measurement.runs:
            prefix = self._keys.output(name, configuration)
            self._items[prefix] = max(items, self._items.get(prefix, 0))
        self.add_elapsed(measurement.compute_s, measurement.replicas.values(), elapsed_s, measurement.elapsed)

    def add_elapsed(
        self,
        ran_s: float,
        replicas: Iterable[ReplicaStats],
        elapsed_s: float,
        elapsed: ElapsedTimes | None = None,
    ) -> None:
        """Add the elapsed seconds of processing for `ran_s` seconds, and the replicas started meanwhile.

        Args:
            ran_s: service seconds, which are more than elapse where operators have fractions of a CPU.
            replicas: statistics of replicas, with their starts.
            elapsed_s: elapsed seconds of the measurement.
            elapsed: those of them in operators and their starts; None if these are service and start-up seconds.
        """
        self._ran_s += ran_s
        if elapsed is None:
            elapsed = ElapsedTimes(ran_s, sum(seconds for replica in replicas for seconds in replica.startup_s))
        self.operators_s += elapsed.operators_s
        self.loading_s += elapsed.loading_s
        self._elapsed_s += elapsed_s

    def increment_s(self, configuration: Configuration, begin: int, end: int) -> float | None:
        """Return the seconds to measure a configuration on items `begin` to `end` of the order, or None if unknown."""
        total_s = 0.0
        for levels in self._levels(configuration).values():
            service_s = self._mean_s(levels)
            if service_s is None:
                return None
            total_s += max(0, end - max(begin, self._items.get(levels[0], 0))) * service_s
        return total_s * self.overhead

    def rest_s(self, begins: Mapping[Configuration, int], end: int) -> float:
        """Return the processing seconds until configurations are measured on `end` items, infinite if unknown.

        Args:
            begins: configuration -> number of measured items. Each prefix is counted once.
            end: number of items.
        """
        total_s, counted = 0.0, set[str]()
        for configuration, begin in begins.items():
            for levels in self._levels(configuration).values():
                if begin < end and levels[0] not in counted:
                    counted.add(levels[0])
                    service_s = self._mean_s(levels)
                    if service_s is None:
                        return math.inf
                    total_s += (end - max(begin, self._items.get(levels[0], 0))) * service_s
        return total_s

    def service_s(self, operator: str, configuration: Configuration) -> float | None:
        """Return the mean seconds of one item, or None if unknown."""
        return self._mean_s(self._levels(configuration)[operator])

    def _mean_s(self, levels: tuple[str, str, str]) -> float | None:
        for key in levels:
            total_s, count = self._observed_s.get(key, (0.0, 0))
            if count:
                return total_s / count
        return None

    @property
    def overhead(self) -> float:
        """Ratio of elapsed to processing seconds."""
        return max(1.0, self._elapsed_s / self._ran_s) if self._ran_s > 0 else 1.0

    def _levels(self, configuration: Configuration) -> Mapping[str, tuple[str, str, str]]:
        """Return operator -> aggregation keys, from the most to the least specific; the first is that of its prefix."""
        levels = self._levels_of.get(configuration)
        if levels is None:
            keys = self._keys
            levels = self._levels_of[configuration] = {
                name: (keys.output(name, configuration), keys.replica(name, configuration[name]), name)
                for name in configuration
            }
        return levels
