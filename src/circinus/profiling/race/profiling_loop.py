"""Loop that decides what to measure next, within a time budget."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection

from circinus.arrays import IntArray
from circinus.profiling.measurement.allocation_profiler import AllocationProfiler
from circinus.profiling.measurement.measurer import Measurer
from circinus.profiling.measurement.runner import MeasurementError, NotRecordedError
from circinus.profiling.measurement.time_estimator import MeasurementTimeEstimator, measurement_cost_model
from circinus.profiling.observer import ProfileObserver, ProfileProgress, TimeBudget
from circinus.profiling.profile import PipelineProfile
from circinus.profiling.race.configuration_order import max_measured_configurations
from circinus.profiling.race.configuration_race import ConfigurationRace
from circinus.profiling.race.resource_usage import ResourceUsage
from circinus.profiling.race.sampler import ConfigurationSampler, Seconds, Suggestion
from circinus.profiling.settings import PROFILING
from circinus.specification import Configuration


class ProfilingLoop:
    """Measurement loop of a pipeline.

    Every configuration is measured on a prefix of one order of items. The first round brings each of them to 8 items,
    or to as many as an equal part of its share of the budget allows, in the order of their prefixes, so that each
    prefix runs once. Then allocations are measured. Then each increment goes where it is expected to decide most
    (`next_measurement`), until no question is open. With a sampler the first round covers few configurations, and the
    sampler suggests what to measure next, started or not.
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
        self._max_measured = max_measured_configurations(measurer.pipeline)
        for configuration in race.configurations:
            self._learn(configuration)

    def run(self) -> None:
        """Measure until all is decided or the budget is spent.

        Raises:
            ProfileError: a score contradicts the metric's declaration, or the store is unusable.
        """
        limit_s = self._budget.remaining_s
        self._complete()
        self._first_look(limit_s * PROFILING.first_round_share)
        self._allocations.measure(limit_s * PROFILING.allocation_share, self._report_allocations)
        self._pursue()
        while self._first_look(self._budget.remaining_s):
            self._pursue()
        self._allocations.measure(math.inf, self._report_allocations)
        self._pursue()  # batches may have raised the memory usage

    @property
    def exhausted(self) -> frozenset[Configuration]:
        """Configurations that cannot be measured further."""
        return frozenset(c for c in self._race.configurations if self._race.is_closed(c))

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
        race = self._race
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
        """Take steps until none remains under the current resource usage."""
        race, stepped = self._race, True
        beyond: set[Configuration] = set()  # not one item of these fits in the remaining budget
        while stepped:
            race.update_usage(self._resource_usage())
            stepped = False
            is_outdated = True
            while self._budget.remaining_s > 0:
                if is_outdated:
                    suggestion, seconds = self._suggestion(beyond)
                latency_only = suggestion is not None  # the sampler selects the SLOs to decide
                step = race.next_step(seconds, self._budget.remaining_s, beyond, latency_only=latency_only)
                if suggestion is not None and (step is None or suggestion.value_per_s > step.value_per_s):
                    configuration = suggestion.configuration
                    target = next(
                        checkpoint for checkpoint in race.checkpoints if checkpoint > race.items(configuration)
                    )
                elif step is not None:
                    configuration, target = race.configurations[step.configuration], step.target
                else:
                    break
                is_started = race.items(configuration) > 0
                if not race.has(configuration):
                    race.add(configuration)
                    race.update_usage(self._resource_usage())
                if self._increase(configuration, target, self._budget.remaining_s):
                    stepped = is_outdated = True
                    if not is_started:
                        break  # its resource usage must be compared first
                else:
                    beyond.add(configuration)
                    is_outdated = suggestion is not None and suggestion.configuration == configuration

    def _suggestion(self, without: Collection[Configuration]) -> tuple[Suggestion | None, Seconds]:
        """Return the sampler's worthwhile suggestion, started or not, and the cost model; prunes open questions."""
        if self._sampler is None or self._current_profile is None:
            return None, self._seconds
        profile = self._current_profile()
        expected_s = measurement_cost_model(self._measurer.pipeline, profile)
        items_of = {measured.configuration: len(measured.items) for measured in profile.configurations}

        def item_s(configuration: Configuration) -> float:
            return expected_s(configuration, items_of.get(configuration, 0) + 1)

        # Configurations at least as slow as one that exceeded the remaining budget are not tried one by one.
        min_s = min((item_s(configuration) for configuration in without), default=math.inf)

        def seconds(configuration: Configuration, items: int) -> float:
            beyond = item_s(configuration) >= min_s or self._race.is_closed(configuration)
            return math.inf if beyond else expected_s(configuration, items)

        decision = self._sampler.suggest(profile, seconds)
        self._race.prune(decision.pruned)
        suggestion, race = decision.next, self._race
        if suggestion is None or suggestion.configuration in without:
            return None, expected_s
        is_full = len(race.configurations) >= self._max_measured
        if is_full and not race.has(suggestion.configuration):
            return None, expected_s
        return suggestion, expected_s

    def _seconds(self, configuration: Configuration, items: int) -> float:
        return self._time_estimator.increment_s(configuration, self._race.items(configuration), items) or 0.0

    def _learn(self, configuration: Configuration) -> None:
        self._race.update_scores(configuration, self._measurer.measured_prefix(configuration, self._order))

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
            end = self._affordable(configuration, begin, min(begin + min_items, target), self._budget.remaining_s)
        if end <= begin:
            return False
        start_s = self._budget.elapsed_s
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
        self._learn(configuration)
        if measurement is not None:
            self._time_estimator.measured(configuration, end, measurement, self._budget.elapsed_s - start_s)
        self._report("scores", configuration)
        return True

    def _affordable(self, configuration: Configuration, begin: int, target: int, allowed_s: float) -> int:
        """Return the largest end of an increment that is expected to take at most `allowed_s`, or `begin`."""
        if math.isinf(allowed_s):
            return target
        if allowed_s <= 0 or target <= begin:
            return begin
        if self._time_estimator.increment_s(configuration, begin, target) is None:
            return begin + 1  # no estimate yet: try one item

        def beyond(end: int) -> bool:
            expected_s = self._time_estimator.increment_s(configuration, begin, end)
            return expected_s is None or expected_s > allowed_s

        return bisect_left(range(begin + 1, target + 1), True, key=beyond) + begin

    def _report_allocations(self, configuration: Configuration) -> None:
        self._report("allocations", configuration)

    def _report(self, phase: str, configuration: Configuration) -> None:
        race, targets = self._race, self._race.target_items()
        expected_s = 0.0
        for target, items in targets.items():
            expected_s += self._time_estimator.increment_s(target, race.items(target), items) or 0.0
        self._observer.progressed(
            ProfileProgress(
                phase=phase,
                configuration=configuration,
                done=sum(race.items(c) for c in race.configurations),
                total=sum(targets.values()),
                elapsed_s=self._budget.elapsed_s,
                remaining_s=min(expected_s, self._budget.remaining_s),
                settled=int(race.state.settled.sum()),
                candidates=len(race.configurations),
            )
        )
