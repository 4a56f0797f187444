"""How long an increment will take, from what was seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache

import numpy as np

from circinus.profiling.measurement.runner import Measurement
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.store.measurement_keys import MeasurementKeys
from circinus.specification import Configuration, Pipeline, prefix_configuration


def measurement_cost_model(pipeline: Pipeline, known: PipelineProfile) -> Callable[[Configuration, int], float]:
    """(configuration, items) -> seconds of processing until it is known on so many items.

    An operator's seconds are its mean under the same prefix, else with the same knobs, else with any. Other than
    `Pace`, by which budgets are kept, it knows nothing of what the prefix cache holds nor of the time that passes
    besides: these differ between runs, and what is measured is to follow from what is known.

    Args:
        pipeline: which pipeline.
        known: what was measured of it.
    """
    by_prefix: dict[tuple[str, Configuration], float] = {}
    for found in known.configurations:
        for name, operator in found.operators.items():
            by_prefix[name, operator.prefix] = float(operator.service_s.mean())
    groups: defaultdict[Hashable, list[float]] = defaultdict(list)
    for (name, its_prefix), mean_s in sorted(by_prefix.items()):
        groups[name, its_prefix[name]].append(mean_s)
        groups[name].append(mean_s)
    means = {key: float(np.mean(alike_s)) for key, alike_s in groups.items()}
    items_of = {found.configuration: len(found.items) for found in known.configurations}

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
    """Estimates the seconds of measuring a configuration.

    An operator's seconds are its mean under the same prefix, else with the same knobs, else with any knobs. What the
    prefix cache holds costs nothing. Loading, warming up and transport are in the ratio of seconds passed to seconds of
    processing, which is large at first and so errs on the safe side.
    """

    def __init__(self, addresses: MeasurementKeys) -> None:
        self._addresses = addresses
        self._seen: defaultdict[str, list[float]] = defaultdict(list)
        self._items: dict[str, int] = {}
        self._elapsed_s = 0.0
        self._ran_s = 0.0

    def known(self, configuration: Configuration, service_s: Mapping[str, Sequence[float]]) -> None:
        """Learn from seconds by operator that were measured at any time."""
        for name, seconds in service_s.items():
            for key in self._keys(name, configuration):
                self._seen[key].extend(seconds)

    def measured(self, configuration: Configuration, items: int, found: Measurement, elapsed_s: float) -> None:
        """Learn from an increment that brought a configuration to `items` items and took `elapsed_s`."""
        self.known(configuration, {name: runs.service_s for name, runs in found.runs.items()})
        for name in found.runs:
            prefix = self._addresses.output(name, configuration)
            self._items[prefix] = max(items, self._items.get(prefix, 0))
        self.spent(found.compute_s, elapsed_s)

    def spent(self, ran_s: float, elapsed_s: float) -> None:
        """Learn how many seconds passed for seconds of processing."""
        self._ran_s += ran_s
        self._elapsed_s += elapsed_s

    def increment_s(self, configuration: Configuration, begin: int, end: int) -> float | None:
        """Seconds to measure a configuration on the items `begin` to `end` of the order; None: no idea yet."""
        total_s = 0.0
        for operator in self._addresses.pipeline.operators:
            prefix = self._addresses.output(operator.name, configuration)
            service_s = self.service_s(operator.name, configuration)
            if service_s is None:
                return None
            total_s += max(0, end - max(begin, self._items.get(prefix, 0))) * service_s
        return total_s * self.overhead

    def service_s(self, operator: str, configuration: Configuration) -> float | None:
        """Mean seconds of one item; None: no idea yet."""
        for key in self._keys(operator, configuration):
            if self._seen.get(key):
                return sum(self._seen[key]) / len(self._seen[key])
        return None

    @property
    def overhead(self) -> float:
        """Seconds that pass for a second of processing."""
        return max(1.0, self._elapsed_s / self._ran_s) if self._ran_s > 0 else 1.0

    def _keys(self, operator: str, configuration: Configuration) -> tuple[str, str, str]:
        """From the most to the least like it."""
        return (
            self._addresses.output(operator, configuration),
            self._addresses.replica(operator, configuration[operator]),
            operator,
        )
