"""Deciding what to measure next, within a time budget."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection

from circinus.arrays import IntArray
from circinus.profiling.budget import TimeBudget
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError, NotRecordedError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator, measurement_cost_model
from circinus.profiling.observer import ProfileObserver, ProfileProgress
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.sampler import ConfigurationSampler, Seconds, Suggestion
from circinus.specification import Configuration

_FIRST_ROUND_SHARE = 0.4
"""Of the budget, for a first look at every configuration; exceeded where one item of each takes longer."""
_ALLOCATION_SHARE = 0.2
"""Of the budget, at most, before scores are made more precise."""


class ProfilingLoop:
    """One measurement of a pipeline.

    Every configuration is measured on a gap-free beginning of the same order of items. The first round brings each of
    them to 8 items, or to as many as an equal part of its share of the budget allows, in the order of their prefixes,
    so that each prefix runs once; then allocations are measured; then one increment after the other goes where it is
    expected to decide most (`next_step`), until no question is open. With an explorer the first round is one of few
    configurations, and then it says what to measure next, begun or not.
    """

    def __init__(
        self,
        measurer: Measurer,
        order: IntArray,
        standings: ConfigurationRace,
        footprints: Callable[[], ResourceUsage],
        allocations: AllocationProfiler,
        pace: MeasurementTimeEstimator,
        budget: TimeBudget,
        observer: ProfileObserver,
        explorer: ConfigurationSampler | None = None,
        known: Callable[[], PipelineProfile] | None = None,
    ) -> None:
        """Measure nothing yet.

        Args:
            measurer: measures.
            order: indexes of the items that may be profiled, in the order of measuring.
            standings: decides, and knows nothing yet; of all configurations, with an explorer of those to begin with.
            footprints: what each configuration takes, as far as it is known now.
            allocations: measures those.
            pace: how long things take.
            budget: what may be spent.
            observer: is told.
            explorer: says which configurations to measure at all; None: all.
            known: for the explorer, what is known now.
        """
        self._measurer = measurer
        self._order = order
        self._standings = standings
        self._footprints = footprints
        self._allocations = allocations
        self._pace = pace
        self._budget = budget
        self._observer = observer
        self._explorer = explorer
        self._known = known
        self._most = max_measured_configurations(measurer.pipeline)
        for configuration in standings.configurations:
            self._learn(configuration)

    def run(self) -> None:
        """Measure until all is settled or the budget is spent.

        Raises:
            ProfileError: a score contradicts the metric's declaration, or the store cannot be used.
        """
        limit_s = self._budget.remaining_s
        self._complete()
        self._first_look(limit_s * _FIRST_ROUND_SHARE)
        self._allocations.measure(limit_s * _ALLOCATION_SHARE, self._tell_allocations)
        self._pursue()
        while self._first_look(self._budget.remaining_s):
            self._pursue()
        self._allocations.measure(math.inf, self._tell_allocations)
        self._pursue()  # batches may have taken more memory than was known

    @property
    def exhausted(self) -> frozenset[Configuration]:
        """Configurations that cannot be measured further."""
        return frozenset(c for c in self._standings.configurations if self._standings.is_closed(c))

    def _complete(self) -> None:
        """Bring increments that were broken off to their look, within the budget: all goes on as it was then."""
        standings = self._standings
        for configuration in standings.configurations:
            items = standings.items(configuration)
            if standings.looks[0] < items < standings.looks[-1] and items not in standings.looks:
                target = next(look for look in standings.looks if look > items)
                self._increase(configuration, target, self._budget.remaining_s)

    def run_exhaustively(self) -> None:
        """Measure every configuration on every item that may be profiled, as far as the budget goes.

        Raises:
            ProfileError: as `run`.
        """
        standings = self._standings
        for look in (standings.looks[0], standings.looks[-1]):
            for configuration in standings.configurations:
                if not standings.is_closed(configuration):
                    self._increase(configuration, look, self._budget.remaining_s)
        self._allocations.measure(math.inf, self._tell_allocations)

    def _first_look(self, limit_s: float) -> bool:
        """Bring those without enough items for any look to the first one, or as far as equal parts of `limit_s` allow.

        Returns:
            Whether anything was measured.
        """
        standings, first = self._standings, self._standings.looks[0]
        end_s, moved = self._budget.elapsed_s + limit_s, False
        for at_least in (1, 0):  # the first of all gets one item, to see how long that takes, and its part then
            waiting = [
                c for c in self._standings.configurations if standings.items(c) < first and not standings.is_closed(c)
            ]
            for done, configuration in enumerate(waiting):
                allowed_s = (end_s - self._budget.elapsed_s) / (len(waiting) - done)
                moved |= self._increase(configuration, first, allowed_s, at_least)
        return moved

    def _pursue(self) -> None:
        """Take steps until none is left with what running each configuration takes as it is known then."""
        standings, stepped = self._standings, True
        beyond: set[Configuration] = set()  # not one item of them fits in what is left of the budget
        while stepped:
            standings.update_usage(self._footprints())
            stepped = False
            learnt = True
            while self._budget.remaining_s > 0:
                if learnt:
                    proposal, seconds = self._proposal(beyond)
                latency_only = proposal is not None  # it tells which objectives are to be decided
                step = standings.next_step(seconds, self._budget.remaining_s, beyond, latency_only=latency_only)
                if proposal is not None and (step is None or proposal.worth_per_s > step.worth_per_s):
                    configuration = proposal.configuration
                    target = next(look for look in standings.looks if look > standings.items(configuration))
                elif step is not None:
                    configuration, target = standings.configurations[step.configuration], step.target
                else:
                    break
                begun = standings.items(configuration) > 0
                if not standings.has(configuration):
                    standings.add(configuration)
                    standings.update_usage(self._footprints())
                if self._increase(configuration, target, self._budget.remaining_s):
                    stepped = learnt = True
                    if not begun:
                        break  # what it takes is to be weighed first
                else:
                    beyond.add(configuration)
                    learnt = proposal is not None and proposal.configuration == configuration

    def _proposal(self, without: Collection[Configuration]) -> tuple[Suggestion | None, Seconds]:
        """What to measure next, begun or not, if it is worth it, and by which seconds; narrows what is open, too."""
        if self._explorer is None or self._known is None:
            return None, self._seconds
        known = self._known()
        expected_s = measurement_cost_model(self._measurer.pipeline, known)
        items_of = {found.configuration: len(found.items) for found in known.configurations}

        def item_s(configuration: Configuration) -> float:
            return expected_s(configuration, items_of.get(configuration, 0) + 1)

        # Where one did not fit in what is left of the budget, those that take as long are not tried one by one.
        least_s = min((item_s(configuration) for configuration in without), default=math.inf)

        def seconds(configuration: Configuration, items: int) -> float:
            beyond = item_s(configuration) >= least_s or self._standings.is_closed(configuration)
            return math.inf if beyond else expected_s(configuration, items)

        assessment = self._explorer.suggest(known, seconds)
        self._standings.prune(assessment.pruned)
        found, standings = assessment.next, self._standings
        full = len(standings.configurations) >= self._most
        if found is None or found.configuration in without or (full and not standings.has(found.configuration)):
            return None, expected_s
        return found, expected_s

    def _seconds(self, configuration: Configuration, items: int) -> float:
        return self._pace.increment_s(configuration, self._standings.items(configuration), items) or 0.0

    def _learn(self, configuration: Configuration) -> None:
        self._standings.update_scores(configuration, self._measurer.measured_prefix(configuration, self._order))

    def _increase(self, configuration: Configuration, target: int, allowed_s: float, at_least: int = 0) -> bool:
        """Measure a configuration on as many items more, up to `target`, as are expected to take `allowed_s`.

        Args:
            configuration: what to measure.
            target: items to be known afterwards, at most.
            allowed_s: seconds.
            at_least: items to measure even where they take longer, if the budget is expected to last for them.

        Returns:
            Whether anything was measured, or found to fail.
        """
        begin = self._standings.items(configuration)
        end = self._affordable(configuration, begin, target, allowed_s)
        if end == begin:
            end = self._affordable(configuration, begin, min(begin + at_least, target), self._budget.remaining_s)
        if end <= begin:
            return False
        before_s = self._budget.elapsed_s
        try:
            found = self._measurer.measure(configuration, self._order[begin:end].tolist())
        except NotRecordedError:
            self._learn(configuration)
            self._standings.mark_exhausted(configuration)
            return True
        except MeasurementError as error:
            self._standings.mark_failed(configuration)
            self._measurer.record_failure(error.failure)
            self._observer.failed(error.failure)
            return True
        self._learn(configuration)
        if found is not None:
            self._pace.measured(configuration, end, found, self._budget.elapsed_s - before_s)
        self._tell("scores", configuration)
        return True

    def _affordable(self, configuration: Configuration, begin: int, target: int, allowed_s: float) -> int:
        """The greatest end of an increment that is expected to take at most `allowed_s`; `begin` if there is none."""
        if math.isinf(allowed_s):
            return target
        if allowed_s <= 0 or target <= begin:
            return begin
        if self._pace.increment_s(configuration, begin, target) is None:
            return begin + 1  # nothing is known yet: try one item

        def beyond(end: int) -> bool:
            expected_s = self._pace.increment_s(configuration, begin, end)
            return expected_s is None or expected_s > allowed_s

        return bisect_left(range(begin + 1, target + 1), True, key=beyond) + begin

    def _tell_allocations(self, configuration: Configuration) -> None:
        self._tell("allocations", configuration)

    def _tell(self, phase: str, configuration: Configuration) -> None:
        standings, goals = self._standings, self._standings.target_items()
        expected_s = 0.0
        for other, goal in goals.items():
            expected_s += self._pace.increment_s(other, standings.items(other), goal) or 0.0
        self._observer.progressed(
            ProfileProgress(
                phase=phase,
                configuration=configuration,
                done=sum(standings.items(c) for c in standings.configurations),
                total=sum(goals.values()),
                elapsed_s=self._budget.elapsed_s,
                remaining_s=min(expected_s, self._budget.remaining_s),
            )
        )
