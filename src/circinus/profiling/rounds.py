"""Deciding what to measure next: round by round, undecided configurations first, within a time budget."""

from __future__ import annotations

import math

from circinus.profiling.allocations import Allocations
from circinus.profiling.budget import Budget
from circinus.profiling.measuring import Measurer
from circinus.profiling.observer import ProfileObserver, ProfileProgress
from circinus.profiling.pace import Pace
from circinus.profiling.runner import MeasurementError
from circinus.profiling.standings import Standings
from circinus.spec import Configuration

_FIRST_TARGET = 8
_ALLOCATION_SHARE = 0.25
"""Of the budget, at most, before scores are made more precise."""


class Rounds:
    """One measurement of a pipeline.

    Every configuration is measured on a gap-free beginning of the same order of items. The first round brings each of
    them to 8 items, or to as many as the budget allows if all are to have equally much of it; then allocations are
    measured; then every round doubles the items of those that are not settled, the ones whose accuracy is undecided
    first. Within a round the configurations come in the order of their prefixes, so that each prefix runs once.
    """

    def __init__(
        self,
        measurer: Measurer,
        standings: Standings,
        allocations: Allocations,
        pace: Pace,
        budget: Budget,
        observer: ProfileObserver,
    ) -> None:
        self._measurer = measurer
        self._standings = standings
        self._allocations = allocations
        self._pace = pace
        self._budget = budget
        self._observer = observer

    def run(self) -> None:
        """Measure until all is settled or the budget is spent.

        Raises:
            ProfileError: a score contradicts the metric's declaration, or the store cannot be used.
        """
        everything = len(self._standings.order)
        share_s = _ALLOCATION_SHARE * self._budget.remaining_s if self._allocations.wanted else 0.0
        self._first_round(min(_FIRST_TARGET, everything), 0.0 if math.isinf(share_s) else share_s)
        self._allocations.measure(share_s, self._tell_allocations)
        target = _FIRST_TARGET
        while self._standings.pending(everything) and self._budget.remaining_s > 0:
            for configuration in self._standings.pending(min(target, everything)):
                self._increase(configuration, min(target, everything), self._budget.remaining_s)
            if target >= everything:
                break
            target *= 2
        self._allocations.measure(math.inf, self._tell_allocations)

    def _first_round(self, target: int, reserved_s: float) -> None:
        waiting = self._standings.pending(target)
        for done, configuration in enumerate(waiting):
            allowed_s = (self._budget.remaining_s - reserved_s) / (len(waiting) - done)
            self._increase(configuration, target, allowed_s, at_least=1)

    def _increase(self, configuration: Configuration, target: int, allowed_s: float, at_least: int = 0) -> None:
        """Measure a configuration on as many items more, up to `target`, as are expected to take `allowed_s`."""
        begin = self._standings.items(configuration)
        end = self._affordable(configuration, begin, target, allowed_s)
        if end == begin and self._affordable(configuration, begin, begin + at_least, self._budget.remaining_s) > begin:
            end = begin + at_least
        if end == begin:
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
        if allowed_s <= 0 or target == begin:
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
