"""Where every configuration stands while a pipeline is measured."""

from __future__ import annotations

from itertools import takewhile

import numpy as np

from circinus.profiling.bounded import Bounded
from circinus.profiling.confidence import mean_bounds
from circinus.profiling.listing import prefix_order
from circinus.profiling.measuring import Measurer
from circinus.profiling.objectives import Objectives
from circinus.profiling.profile import FloatArray, IntArray
from circinus.spec import Configuration, Pipeline


class Standings:
    """On how many items each configuration is known, and what that says."""

    def __init__(
        self, pipeline: Pipeline, measurer: Measurer, order: IntArray, population: int, objectives: Objectives
    ) -> None:
        """Begin with what the store knows.

        Args:
            pipeline: what is measured.
            measurer: knows the store.
            order: indexes of the items that may be profiled, in the order of measuring.
            population: number of items of the data set, whose mean score is to be bounded.
            objectives: what is to be settled.
        """
        self.configurations = prefix_order(pipeline)
        self.order = order
        self.targets = looks(len(order))
        needed = min(objectives.latency_items, len(order))
        self.latency_items = next(target for target in self.targets if target >= needed)
        self._population = population
        self._metric = pipeline.metric
        self._measurer = measurer
        self._objectives = objectives
        self._scores: dict[Configuration, FloatArray] = {}
        self._bounds: dict[Configuration, Bounded] = {}
        self._failed: set[Configuration] = set()
        for configuration in self.configurations:
            self.look_up(configuration)

    def look_up(self, configuration: Configuration) -> None:
        """See what the store knows of a configuration now."""
        scores = self._measurer.known_scores(configuration)[self.order]
        missing = np.isnan(scores)
        beginning = int(np.argmax(missing)) if missing.any() else len(scores)
        self._scores[configuration] = scores[:beginning]
        self._bounds.pop(configuration, None)

    def fail(self, configuration: Configuration) -> None:
        """Measure it no more."""
        self._failed.add(configuration)

    def failed(self, configuration: Configuration) -> bool:
        """Whether it failed in this measurement."""
        return configuration in self._failed

    def items(self, configuration: Configuration) -> int:
        """Length of the beginning of the order on which it is known."""
        return len(self._scores[configuration])

    def accuracy(self, configuration: Configuration) -> Bounded:
        """Bounds of its mean score."""
        if configuration not in self._bounds:
            self._bounds[configuration] = self.bounds(self._scores[configuration])
        return self._bounds[configuration]

    def scores(self, configuration: Configuration) -> FloatArray:
        """(items,) scores in the order of measuring."""
        return self._scores[configuration]

    def bounds(self, scores: FloatArray) -> Bounded:
        """Bounds of the mean score of the whole data set, had its first items these scores."""
        low, high = self._metric.range
        return mean_bounds(scores, self._population, risk=self._objectives.risk, low=low, high=high)

    @property
    def best_score(self) -> float:
        """The best that the metric can say."""
        low, high = self._metric.range
        return high if self._metric.direction == "maximize" else low

    def settled(self, configuration: Configuration) -> bool:
        """Whether it needs no more items."""
        items = self.items(configuration)
        if items == len(self.order) or self.failed(configuration):
            return True
        return items > 0 and self._objectives.settled(self.accuracy(configuration), items)[0]

    def pending(self, target: int) -> list[Configuration]:
        """Those not settled and known on fewer than `target` items: undecided ones first, each part in prefix order."""
        waiting = [c for c in self.configurations if self.items(c) < target and not self.settled(c)]
        return sorted(waiting, key=lambda c: not self._objectives.undecided(self.accuracy(c)))

    def goal(self, configuration: Configuration) -> int:
        """Items on which it is going to be known, as it looks now."""
        items = self.items(configuration)
        if self.settled(configuration):
            return items
        if items and self._objectives.undecided(self.accuracy(configuration)):
            return len(self.order)
        return max(items, self.latency_items)


def looks(items: int) -> tuple[int, ...]:
    """Numbers of items after which to look again: 8, 16, 24, 32, 48, 64, 96, ... and all.

    The bounds allow any number of looks; the half steps keep a configuration from getting twice what it needs.
    """
    doubled = (8 << k for k in range(64))
    steps = (step for whole in doubled for step in ((whole,) if whole == 8 else (whole, whole * 3 // 2)))
    return (*takewhile(lambda step: step < items, steps), items)
