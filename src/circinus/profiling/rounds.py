"""Deciding what to measure next, within a time budget."""

from __future__ import annotations

import math

from circinus.profiling.allocations import Allocations
from circinus.profiling.budget import Budget
from circinus.profiling.measuring import Measurer
from circinus.profiling.observer import ProfileObserver, ProfileProgress
from circinus.profiling.pace import Pace
from circinus.profiling.prospects import Prospects
from circinus.profiling.runner import MeasurementError
from circinus.profiling.standings import Standings
from circinus.spec import Configuration

_FIRST_ROUND_SHARE = 0.4
"""Of the budget, for a first look at every configuration; exceeded where one item of each takes longer."""
_ALLOCATION_SHARE = 0.2
"""Of the budget, at most, before scores are made more precise."""


class Rounds:
    """One measurement of a pipeline.

    Every configuration is measured on a gap-free beginning of the same order of items. The first round brings each of
    them to 8 items, or to as many as an equal part of its share of the budget allows; then allocations are measured;
    then those are pursued that may soon surely meet an objective (`Prospects`); at last every round adds items
    to those that are not settled, the ones whose accuracy is undecided first, as far as the budget allows if it is
    divided equally. Within a round the configurations come in the order of their prefixes, so that each prefix runs
    once.
    """

    def __init__(
        self,
        measurer: Measurer,
        standings: Standings,
        prospects: Prospects,
        allocations: Allocations,
        pace: Pace,
        budget: Budget,
        observer: ProfileObserver,
    ) -> None:
        self._measurer = measurer
        self._standings = standings
        self._prospects = prospects
        self._allocations = allocations
        self._pace = pace
        self._budget = budget
        self._observer = observer

    def run(self) -> None:
        """Measure until all is settled or the budget is spent.

        Raises:
            ProfileError: a score contradicts the metric's declaration, or the store cannot be used.
        """
        limit_s = self._budget.remaining_s
        first, *further = self._standings.targets
        self._round(first, limit_s * _FIRST_ROUND_SHARE)
        self._allocations.measure(limit_s * _ALLOCATION_SHARE, self._tell_allocations)
        self._pursue_prospects()
        for target in (first, *further):
            self._round(target, self._budget.remaining_s)
        self._allocations.measure(math.inf, self._tell_allocations)

    def _round(self, target: int, limit_s: float) -> None:
        """Bring those that are not settled to `target` items, or as far as equal parts of `limit_s` allow."""
        waiting = self._standings.pending(target)
        end_s = self._budget.elapsed_s + limit_s
        for done, configuration in enumerate(waiting):
            allowed_s = (end_s - self._budget.elapsed_s) / (len(waiting) - done)
            self._increase(configuration, target, allowed_s, at_least=1)

    def _pursue_prospects(self) -> None:
        while (configuration := self._prospects.best(self._budget.remaining_s)) is not None:
            items = self._standings.items(configuration)
            target = next(target for target in self._standings.targets if target > items)
            self._increase(configuration, target, self._budget.remaining_s)
            if self._standings.items(configuration) == items and not self._standings.failed(configuration):
                return

    def _increase(self, configuration: Configuration, target: int, allowed_s: float, at_least: int = 0) -> None:
        """Measure a configuration on as many items more, up to `target`, as are expected to take `allowed_s`.

        Args:
            configuration: what to measure.
            target: items to be known afterwards, at most.
            allowed_s: seconds.
            at_least: items to measure even where they take longer, if the budget is expected to last for them.
        """
        begin = self._standings.items(configuration)
        end = self._affordable(configuration, begin, target, allowed_s)
        if end == begin:
            end = self._affordable(configuration, begin, min(begin + at_least, target), self._budget.remaining_s)
        if end <= begin:
            return
        before_s = self._budget.elapsed_s
        try:
            found = self._measurer.measure(configuration, self._standings.order[begin:end].tolist())
        except MeasurementError as error:
            self._standings.fail(configuration)
            self._measurer.record_failure(error.failure)
            self._observer.failed(error.failure)
            return
        self._standings.look_up(configuration)
        if found is not None:
            self._pace.measured(configuration, end, found, self._budget.elapsed_s - before_s)
        self._tell("scores", configuration)

    def _affordable(self, configuration: Configuration, begin: int, target: int, allowed_s: float) -> int:
        """The greatest end of an increment that is expected to take at most `allowed_s`; `begin` if there is none."""
        if math.isinf(allowed_s):
            return target
        if allowed_s <= 0 or target <= begin:
            return begin
        if self._pace.increment_s(configuration, begin, target) is None:
            return begin + 1  # nothing is known yet: try one item
        for end in range(target, begin, -1):
            expected_s = self._pace.increment_s(configuration, begin, end)
            if expected_s is not None and expected_s <= allowed_s:
                return end
        return begin

    def _tell_allocations(self, configuration: Configuration) -> None:
        self._tell("allocations", configuration)

    def _tell(self, phase: str, configuration: Configuration) -> None:
        standings = self._standings
        expected_s = 0.0
        for other in standings.configurations:
            expected_s += self._pace.increment_s(other, standings.items(other), standings.goal(other)) or 0.0
        self._observer.progressed(
            ProfileProgress(
                phase=phase,
                configuration=configuration,
                done=sum(standings.items(c) for c in standings.configurations),
                total=sum(standings.goal(c) for c in standings.configurations),
                elapsed_s=self._budget.elapsed_s,
                remaining_s=min(expected_s, self._budget.remaining_s),
            )
        )
