"""Loop that decides what to measure next, within a time budget."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Collection
from functools import cached_property

import numpy as np

from circinus.arrays import IntArray
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError, NotRecordedError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator, measurement_cost_model
from circinus.profiling.observer import ProfileObserver, ProfileProgress, TimeBudget
from circinus.profiling.profile import PipelineProfile, StoppingCertificate, TimeSpent
from circinus.profiling.race.configuration_order import max_measured_configurations, prefix_order
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.decision_pace import DecisionPace
from circinus.profiling.race.increment_pace import IncrementPace
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.sampler import (
    ConfigurationSampler,
    SamplerDecision,
    Seconds,
    Suggestion,
)
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration, configuration_count


class ProfilingLoop:
    """Measurement loop of a pipeline.

    Every configuration is measured on a prefix of one order of items. The first round brings each of them to 8 items,
    or to as many as an equal part of its share of the budget allows, in the order of their prefixes, so that each
    prefix runs once. Then allocations are measured. Then each increment goes where it is expected to decide most
    (`next_measurement`), until no question is open. With a sampler the first round covers few configurations, and the
    sampler suggests what to measure next, started or not. Where increments are short, several follow one decision
    (`DecisionPace`): its suggestions, then what `next_measurement` returns. They get longer where their overhead is
    large for what they measure (`IncrementPace`).
    """

    def __init__(
        self,
        measurer: Measurer,
        order: IntArray,
        race: ConfigurationRace,
        resource_usage: Callable[[], ResourceUsage],
        allocations: AllocationProfiler,
        time_estimator: MeasurementTimeEstimator,
        budget: TimeBudget,
        observer: ProfileObserver,
        sampler: ConfigurationSampler | None = None,
        current_profile: Callable[[], PipelineProfile] | None = None,
    ) -> None:
        """Prepare the loop without measuring; `order` has the indexes of the profiling items.

        The race has no scores yet; its configurations are all or, with a sampler, the initial ones.
        """
        self._measurer = measurer
        self._order = order
        self._race = race
        self._resource_usage = resource_usage
        self._allocations = allocations
        self._time_estimator = time_estimator
        self._budget = budget
        self._observer = observer
        self._sampler = sampler
        self._current_profile = current_profile
        self._pace = DecisionPace(budget)
        self._increments = IncrementPace()
        self._selected_s = 0.0
        """Seconds of selecting steps, up to the last increment."""
        self._measured_items = 0
        self._is_exhaustive = False
        self._decision: SamplerDecision | None = None
        self._suggestions: list[Suggestion] = []
        self._is_decided = False
        """Whether nothing was measured since the decision."""
        self._is_restricted = False
        """Whether the decision left out configurations that the remaining budget did not suffice for."""
        self._seconds: Seconds = self._increment_s
        self._max_measured = max_measured_configurations(measurer.pipeline)
        for configuration in race.configurations:
            self._learn(configuration)

    def run(self) -> None:
        """Measure until all is decided or the budget is spent.

        Raises:
            ProfileError: a score contradicts the metric's declaration, or the store is unusable.
        """
        limit_s = self._budget.remaining_s
        if not limit_s and self._budget.limit_s:  # the start took all, but no pipeline is to end with nothing
            self._increase(self._race.configurations[0], 1, math.inf)
        self._complete()
        self._first_look(limit_s * PROFILING.first_round_share)
        for allocations_s in (limit_s * PROFILING.allocation_share, math.inf):
            self._allocations.measure(min(allocations_s, self._available_s), self._report_allocations)
            self._pursue()  # batches may have raised the memory usage
            while self._first_look(self._available_s):
                self._pursue()

    def final_decision(self, *, interrupted: bool) -> SamplerDecision | None:
        """Return the decision about all measurements if the budget allows one, else the last, with no certificate."""
        if self._sampler is None:
            return None
        self._is_decided &= not self._is_restricted
        if not interrupted and (rest_s := self._rest_s()) >= self._pace.last_s:
            self._decide(self._pace.limit_s(rest_s, is_last=True))
        if self._decision is not None and self._is_decided:
            return self._decision
        state, unmeasured = self._race.state, self._unmeasured
        certificate = StoppingCertificate.without_estimate(
            unmeasured,
            conclusive=not unmeasured and bool((state.items >= self._race.checkpoints[0]).all()),
            is_complete=not unmeasured and bool((state.decisive_items >= self._race.checkpoints[-1]).all()),
        )
        return SamplerDecision((), certificate, {} if self._decision is None else self._decision.pruned)

    @property
    def spent(self) -> TimeSpent:
        """Time so far."""
        estimator, deciding_s = self._time_estimator, self._pace.deciding_s
        other_s = self._budget.elapsed_s - estimator.operators_s - estimator.loading_s - deciding_s
        return TimeSpent(estimator.operators_s, estimator.loading_s, deciding_s, max(other_s, 0.0))

    @property
    def failed(self) -> frozenset[Configuration]:
        """Configurations that failed."""
        return frozenset(filter(self._race.failed, self._race.configurations))

    @property
    def _available_s(self) -> float:
        """Remaining seconds without those of a last decision."""
        return self._budget.remaining_s - self._pace.reserve_s

    def _complete(self) -> None:
        """Complete interrupted increments within the budget, so that a resumed run makes the same decisions."""
        race = self._race
        for configuration in race.configurations:
            items = race.items(configuration)
            if race.checkpoints[0] < items < race.checkpoints[-1] and items not in race.checkpoints:
                target = next(checkpoint for checkpoint in race.checkpoints if checkpoint > items)
                self._increase(configuration, target, self._budget.remaining_s)

    def run_exhaustively(self) -> None:
        """Measure every configuration on every profiling item, within the budget.

        Raises:
            ProfileError: see `run`.
        """
        race, self._is_exhaustive = self._race, True
        for checkpoint in (race.checkpoints[0], race.checkpoints[-1]):
            for configuration in race.configurations:
                if not race.is_closed(configuration):
                    self._increase(configuration, checkpoint, self._budget.remaining_s)
        self._allocations.measure(math.inf, self._report_allocations)

    def _first_look(self, limit_s: float) -> bool:
        """Bring configurations to their first interim analysis, or as far as equal parts of `limit_s` allow.

        Returns:
            Whether anything was measured.
        """
        race, first_size = self._race, self._race.checkpoints[0]
        end_s, any_measured = self._budget.elapsed_s + limit_s, False
        for min_items in (1, 0):  # the very first configuration gets one item to learn the duration, then its part
            pending = [c for c in self._race.configurations if race.items(c) < first_size and not race.is_closed(c)]
            for done, configuration in enumerate(pending):
                allowed_s = (end_s - self._budget.elapsed_s) / (len(pending) - done)
                any_measured |= self._increase(configuration, first_size, allowed_s, min_items)
        return any_measured

    def _pursue(self) -> None:
        """Take steps until none remains under the current resource usage.

        Further steps of new configurations follow a comparison of their resource usage. Where starting one takes too
        little for the overhead of a comparison, several are started before.
        """
        race, stepped = self._race, True
        beyond: set[Configuration] = set()  # not one item of these fits in the remaining budget
        while stepped:
            begin_s = self._budget.elapsed_s
            race.update_usage(self._resource_usage())
            updated_s = self._budget.elapsed_s
            next_s = updated_s + (updated_s - begin_s) / PROFILING.overhead_share
            stepped, new = False, set[Configuration]()
            while self._available_s > 0:
                with self._pace.selecting():
                    step = self._choose(beyond, new)
                if step is None:
                    break
                configuration, target = step
                is_started = race.items(configuration) > 0
                if not race.has(configuration):
                    race.add(configuration)
                suggestion = self._next_suggestion(new)
                is_suggested = suggestion is not None and suggestion.configuration == configuration
                if suggestion is not None and is_suggested:
                    self._suggestions.remove(suggestion)
                if self._increase(configuration, self._paced(configuration, target), self._available_s):
                    stepped = True
                    if not is_started:
                        new.add(configuration)
                    if new and self._budget.elapsed_s >= next_s:
                        break
                else:
                    beyond.add(configuration)
                    self._is_decided &= not is_suggested

    def _choose(
        self, beyond: Collection[Configuration], new: Collection[Configuration]
    ) -> tuple[Configuration, int] | None:
        """Return the next configuration and its number of items, after a decision if one is due or nothing is left.

        Everything is measured instead if that is expected to take less time than deciding took so far, as nothing is
        known of what further decisions save (Karlin et al., Competitive snoopy caching, Algorithmica 3, 1988).
        """
        for is_forced in (False,) if new else (False, True):
            if self._sampler is not None and not self._is_decided and (is_forced or self._pace.is_due):
                rest_s = self._rest_s()
                if rest_s < self._pace.deciding_s:
                    self._measure_rest()
                    return None
                if is_forced and self._repeat_suggestions() and (step := self._next_step(beyond)) is not None:
                    return step
                is_last_resort = is_forced and math.isinf(rest_s)
                limit_s = self._budget.remaining_s if is_last_resort else self._pace.limit_s(rest_s)
                if not self._decide(limit_s, beyond) and is_forced and not is_last_resort:
                    self._decision = None  # the race alone settles what is measured
                    self._race.prune(dict.fromkeys(self._race.state.slos.requirements, ()))
            step = self._next_step(beyond, new)
            if step is not None:
                return step
        return None

    def _repeat_suggestions(self) -> bool:
        """Suggest again what measurements left open, unless they took long enough for the next decision."""
        race, state = self._race, self._race.state
        if self._decision is not None and not self._pace.is_paid:
            settled = {race.configurations[index] for index in np.flatnonzero(state.settled).tolist()}
            self._suggestions = [s for s in self._decision.suggestions if s.configuration not in settled]
        return bool(self._suggestions)

    def _next_suggestion(self, new: Collection[Configuration]) -> Suggestion | None:
        """Return the first suggestion of others than `new` configurations, which wait for a comparison of usages."""
        return next((suggestion for suggestion in self._suggestions if suggestion.configuration not in new), None)

    def _next_step(
        self, beyond: Collection[Configuration], new: Collection[Configuration] = ()
    ) -> tuple[Configuration, int] | None:
        """Return the next suggestion or the race's next step, as configuration and number of items."""
        race = self._race
        is_full = len(race.configurations) >= self._max_measured
        self._suggestions = [
            suggestion
            for suggestion in self._suggestions
            if (configuration := suggestion.configuration) not in beyond
            and not race.is_closed(configuration)
            and race.items(configuration) < race.checkpoints[-1]
            and (race.has(configuration) or not is_full)
        ]
        suggestion, skipped = self._next_suggestion(new), {*beyond, *new}
        latency_only = suggestion is not None  # the sampler selects the SLOs to decide
        step = race.next_step(self._seconds, self._budget.remaining_s, skipped, latency_only=latency_only)
        if suggestion is not None and (step is None or suggestion.value_per_s > step.value_per_s):
            items = race.items(suggestion.configuration)
            return suggestion.configuration, next(size for size in race.checkpoints if size > items)
        return self._unstarted(skipped) if step is None else (race.configurations[step.configuration], step.target)

    def _unstarted(self, beyond: Collection[Configuration]) -> tuple[Configuration, int] | None:
        """Return the fastest unmeasured configuration and its number of items, if there is no decision."""
        race, pipeline = self._race, self._measurer.pipeline
        if self._sampler is None or self._decision or configuration_count(pipeline) > PROFILING.max_measured:
            return None
        unstarted = [c for c in self._listed if not (race.items(c) or race.is_closed(c) or c in beyond)]
        first = race.checkpoints[0]
        fastest = min(unstarted, key=lambda c: self._time_estimator.increment_s(c, 0, first) or 0.0, default=None)
        return None if fastest is None else (fastest, first)

    def _decide(self, limit_s: float, without: Collection[Configuration] = ()) -> bool:
        """Update the sampler's decision within `limit_s`; return whether anything had changed and it was made."""
        if self._sampler is None or self._current_profile is None or self._is_decided or not self._pace.fits(limit_s):
            return False
        decision: SamplerDecision | None = None
        with self._pace.timed(limit_s) as check_time:
            profile = self._current_profile()
            expected_s = measurement_cost_model(self._measurer.pipeline, profile)
            items_of = {measured.configuration: len(measured.items) for measured in profile.configurations}

            def item_s(configuration: Configuration) -> float:
                return expected_s(configuration, items_of.get(configuration, 0) + 1)

            def remaining_s(configuration: Configuration, items: int) -> float:
                return max(items - self._race.items(configuration), 0) * item_s(configuration)

            # Configurations at least as slow as one that exceeded the remaining budget are not tried one by one.
            min_s = min((item_s(configuration) for configuration in without), default=math.inf)

            def seconds(configuration: Configuration, items: int) -> float:
                beyond = item_s(configuration) >= min_s or self._race.is_closed(configuration)
                return math.inf if beyond else expected_s(configuration, items)

            decision = self._sampler.suggest(profile, seconds, check_time)
        if decision is None:
            self._suggestions = []
            return False
        self._race.prune(decision.pruned)
        self._decision, self._suggestions, self._seconds = decision, list(decision.suggestions), remaining_s
        self._is_decided, self._is_restricted = True, bool(without)
        return True

    @property
    def _unmeasured(self) -> int:
        race = self._race
        tried = sum(race.items(c) > 0 or race.failed(c) for c in race.configurations)
        return configuration_count(self._measurer.pipeline) - tried

    def _rest_s(self) -> float:
        """Return the processing seconds until everything is measured, infinite if unknown or too much to count."""
        if configuration_count(self._measurer.pipeline) > PROFILING.max_measured:
            return math.inf
        race, end = self._race, self._race.checkpoints[-1]
        begins = {c: items for c in self._listed if (items := race.items(c)) < end and not race.is_closed(c)}
        return self._time_estimator.rest_s(begins, end)

    @cached_property
    def _listed(self) -> tuple[Configuration, ...]:
        """All configurations of a space that can be listed."""
        return prefix_order(self._measurer.pipeline)

    def _measure_rest(self) -> None:
        for configuration in self._listed:
            self._race.add(configuration)
        with self._pace.selecting(-1):  # within a selection, and none itself
            self.run_exhaustively()

    def _learn(self, configuration: Configuration) -> None:
        self._race.update_scores(configuration, self._measurer.measured_prefix(configuration, self._order))

    def _increment_s(self, configuration: Configuration, items: int) -> float:
        return self._time_estimator.increment_s(configuration, self._race.items(configuration), items) or 0.0

    def _paced(self, configuration: Configuration, target: int) -> int:
        """Return `target` or, where that takes too little for the overhead of an increment, a later analysis.

        The first increment of a configuration is not extended, as its knob values may be slower than expected.
        """
        if not self._race.items(configuration):
            return target
        sizes = [size for size in self._race.checkpoints if size >= target]
        return self._increments.target(sizes, lambda items: self._increment_s(configuration, items))

    def _increase(self, configuration: Configuration, target: int, allowed_s: float, min_items: int = 0) -> bool:
        """Measure a configuration on more items, up to `target`, as far as `allowed_s` is expected to suffice.

        Args:
            min_items: items to measure even if they take longer, as long as the budget is expected to suffice.

        Returns:
            Whether anything was measured or failed.
        """
        begin = self._race.items(configuration)
        end = self._affordable(configuration, begin, target, allowed_s)
        if end == begin:
            end = self._affordable(configuration, begin, min(begin + min_items, target), self._available_s)
        if end <= begin:
            return False
        start_s = self._budget.elapsed_s
        self._is_decided = False
        try:
            measurement = self._measurer.measure(configuration, self._order[begin:end].tolist())
        except NotRecordedError:
            self._learn(configuration)
            self._race.mark_exhausted(configuration)
            return True
        except MeasurementError as error:
            self._race.mark_failed(configuration)
            self._measurer.record_failure(error.failure)
            self._observer.failed(error.failure)
            return True
        end_s = self._budget.elapsed_s
        if measurement is None or len(measurement.scores) < end - begin:  # some were stored
            self._learn(configuration)
        else:
            self._race.add_scores(configuration, measurement.scores)
        self._measured_items += end - begin
        if measurement is not None:
            self._time_estimator.measured(configuration, end, measurement, end_s - start_s)
        self._report("scores", configuration)
        selecting_s, self._selected_s = self._pace.selection_s - self._selected_s, self._pace.selection_s
        self._increments.add(self._budget.elapsed_s - end_s + selecting_s)
        return True

    def _affordable(self, configuration: Configuration, begin: int, target: int, allowed_s: float) -> int:
        """Return the largest end of an increment that is expected to take at most `allowed_s`, or `begin`."""
        if math.isinf(allowed_s):
            return target
        if allowed_s <= 0 or target <= begin:
            return begin
        if self._time_estimator.increment_s(configuration, begin, target) is None:
            return begin + 1  # no estimate yet: try one item

        def expected_s(end: int) -> float:
            return self._time_estimator.increment_s(configuration, begin, end) or 0.0

        return begin + bisect_right(range(begin + 1, target + 1), allowed_s, key=expected_s)

    def _report_allocations(self, configuration: Configuration) -> None:
        self._is_decided = False
        self._report("allocations", configuration)

    def _report(self, phase: str, configuration: Configuration) -> None:
        race, state, items = self._race, self._race.state, self._race.state.items
        everything = np.where(state.failed | state.exhausted, items, race.checkpoints[-1])
        targets = everything if self._is_exhaustive else race.target_items
        expected_s = 0.0
        for index in np.flatnonzero(targets > items).tolist():
            increment = race.configurations[index], int(items[index]), int(targets[index])
            expected_s += self._time_estimator.increment_s(*increment) or 0.0
        unstarted = configuration_count(self._measurer.pipeline) - len(race.configurations)
        if unstarted > self._max_measured:
            unstarted = 0  # nearly all of them are never measured
        rest_items = unstarted * race.checkpoints[-1]
        elapsed_s = self._budget.elapsed_s
        if self._measured_items:
            expected_s += rest_items * elapsed_s / self._measured_items
        self._observer.progressed(
            ProfileProgress(
                phase=phase,
                configuration=configuration,
                done=int(items.sum()),
                total=int(targets.sum()) + rest_items,
                elapsed_s=elapsed_s,
                remaining_s=min(expected_s, self._budget.remaining_s),
                settled=int(state.settled.sum()),
                candidates=len(race.configurations) + unstarted,
            )
        )
