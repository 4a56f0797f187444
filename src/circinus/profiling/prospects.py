"""Which configuration to measure on more items, so that soon every objective has one that surely meets it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from circinus.profiling.bounded import Bounded
from circinus.profiling.objectives import Objectives
from circinus.profiling.pace import Pace
from circinus.profiling.standings import Standings
from circinus.spec import AccuracySlo, Configuration, Pipeline


class Prospects:
    """How many items each configuration is expected to need until it surely meets an accuracy objective.

    A plan needs one configuration whose *bounds* meet the objective: with little time it is better to be sure of a few
    than to be unsure of all. Expected is that further scores are like those seen, and one more as good as can be, so
    that few items do not end a configuration's chances by bad luck.
    """

    def __init__(self, pipeline: Pipeline, standings: Standings, objectives: Objectives, pace: Pace) -> None:
        self._pipeline = pipeline
        self._standings = standings
        self._objectives = objectives
        self._pace = pace
        self._expected: dict[Configuration, tuple[int, dict[int, Bounded]]] = {}

    def best(self, within_s: float) -> Configuration | None:
        """The configuration that is expected to be worth most per second of measuring.

        It is worth the weights of the queries whose objectives it will surely meet; of an objective that others surely
        meet already, only the part of the CPU seconds an item that it takes fewer.

        Args:
            within_s: seconds left; what takes longer comes after all that does not, for a later call to end it.

        Returns:
            None where there is no prospect.
        """
        configurations = self._standings.configurations
        limits_s = [
            min((self._run_cpu_s(c) for c in configurations if self._surely(c, slo)), default=math.inf)
            for slo in self._objectives.thresholds
        ]
        found, greatest = None, (False, 0.0)
        for configuration in configurations:
            if not self._standings.items(configuration) or self._standings.settled(configuration):
                continue
            for target, bounds in self._bounds(configuration).items():
                worth = self._worth(configuration, bounds, limits_s)
                seconds = self._pace.increment_s(configuration, self._standings.items(configuration), target)
                if worth > 0 and seconds is not None:
                    rank = seconds <= within_s, worth / max(seconds, 1e-9)
                    if rank > greatest:
                        found, greatest = configuration, rank
        return found

    def _worth(self, configuration: Configuration, bounds: Bounded, limits_s: Sequence[float]) -> float:
        run_s = self._run_cpu_s(configuration)
        return sum(
            weight * (1.0 if math.isinf(limit_s) else max(0.0, 1.0 - run_s / limit_s))
            for slo, weight, limit_s in zip(
                self._objectives.thresholds, self._objectives.weights, limits_s, strict=True
            )
            if _meets(bounds, slo)
        )

    def _surely(self, configuration: Configuration, slo: AccuracySlo) -> bool:
        enough = self._standings.items(configuration) >= self._standings.latency_items
        return (
            enough
            and not self._standings.failed(configuration)
            and _meets(self._standings.accuracy(configuration), slo)
        )

    def _bounds(self, configuration: Configuration) -> dict[int, Bounded]:
        """Bounds by numbers of items that are enough for latency too, were the further scores like those seen."""
        items = self._standings.items(configuration)
        known = self._expected.get(configuration)
        if known is None or known[0] != items:
            scores = self._standings.scores(configuration)
            pattern = np.append(scores, self._standings.best_score)
            bounds = {
                target: self._standings.bounds(np.append(scores, np.resize(pattern, target - items)))
                for target in self._standings.targets
                if target > items and target >= self._standings.latency_items
            }
            known = self._expected[configuration] = items, bounds
        return known[1]

    def _run_cpu_s(self, configuration: Configuration) -> float:
        return sum(
            (self._pace.service_s(operator.name, configuration) or 0.0) * min(operator.cpus)
            for operator in self._pipeline.operators
        )


def _meets(bounds: Bounded, slo: AccuracySlo) -> bool:
    return slo.holds_for(bounds.lower) and slo.holds_for(bounds.upper)
