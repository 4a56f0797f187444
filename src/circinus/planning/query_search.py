"""Plan search of one query, with all SLOs or without one of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from circinus.arrays import FloatArray, IntArray
from circinus.estimation import PlanCandidate, QueryEstimators
from circinus.estimation.slo_probability import accuracy_slo_probability
from circinus.planning.frontier import MeasuredItems
from circinus.planning.plan_arrays import PlanArrays, PlanMetrics, PlanNames
from circinus.planning.plan_search import (
    cheapest_plans,
    fastest_plan,
    high_margin_plans,
    min_latency_s,
    nondominated_plans,
    select_high_margin,
)
from circinus.planning.profile_arrays import ProfileArrays
from circinus.planning.search_space import Limits, compile_query
from circinus.planning.settings import SearchSettings
from circinus.specification import Configuration, Network, Pipeline, Query
from circinus.statistics.mean_decision import items_until_bounded, shrunk_variance

_ROUNDING = 1e-6
"""Relative rounding error of bounds in single precision."""


class QuerySearch:
    """Plan searches of one query. Configurations are indexes into `arrays.configurations`.

    A search near the accuracy SLO leaves out configurations farther from it than near misses are: only a query without
    a plan needs them, and their queueing models take time. On 108 configurations with waiting batches and five queries,
    this saved a third of the models.
    """

    def __init__(
        self,
        query: Query,
        pipeline: Pipeline,
        arrays: ProfileArrays,
        network: Network,
        settings: SearchSettings,
        *,
        is_near: bool = False,
        estimators: QueryEstimators | None = None,
    ) -> None:
        self.query = query
        self.arrays = arrays
        self.settings = settings
        self.considered: Counter[str] = Counter(configurations=len(arrays.configurations))
        slo = query.slos.accuracy
        self.shortfall: FloatArray = np.array(
            [-slo.margin(slo.worst(c.accuracy)) if slo else 0.0 for c in arrays.configurations]
        )
        """(configurations,) gap between the guaranteed accuracy and the SLO; positive if the SLO is missed."""
        farthest = np.sort(self.shortfall[self.shortfall > 0])[: settings.max_ranked].max(initial=0.0)
        self.searched: IntArray = np.flatnonzero(self.shortfall <= (farthest if is_near else np.inf))
        """Indexes of the configurations that are searched."""
        self.space = compile_query(query, network, arrays, settings, configurations=self.searched)
        for table in self.space.options:
            self.considered["options that fit in no pool"] += table.ineligible
            self.considered["dominated options"] += table.dominated
        self._pipeline = pipeline
        self._names = PlanNames.of(self.space)
        self.estimators = estimators or QueryEstimators(
            query,
            pipeline,
            network,
            population=arrays.score_population,
            samples=arrays.samples,
        )

    @property
    def accurate(self) -> IntArray:
        """Indexes of the configurations guaranteed to meet the accuracy SLO."""
        return np.flatnonzero(self.shortfall <= 0)

    @property
    def has_near_misses(self) -> bool:
        """Whether all configurations are searched that near misses can be of."""
        is_searched = np.isin(np.arange(len(self.shortfall)), self.searched)
        nearest = (self.shortfall > 0) & is_searched
        return bool(is_searched.all() or (self.violation[nearest] <= 0).all())

    @cached_property
    def violation(self) -> FloatArray:
        """(configurations,) lower bound of the relative excess of the fastest plan over the latency limit.

        At most 0 if some plan may meet the limit, infinite if no plan fits in the pools.
        """
        if self.query.slos.latency is None:
            return np.zeros(len(self.arrays.configurations))
        everything = np.arange(len(self.arrays.configurations))
        return min_latency_s(self.space, everything) / (self.space.limit_s * (1 + _ROUNDING)) - 1

    @cached_property
    def accuracy_probability(self) -> FloatArray:
        """(configurations,) probability of meeting the accuracy SLO."""
        slo, metric = self.query.slos.accuracy, self._pipeline.metric
        if slo is None:
            return np.ones(len(self.arrays.configurations))
        configurations, population = self.arrays.configurations, self.arrays.score_population
        probabilities = np.array(
            [accuracy_slo_probability(c.scores, population, slo, metric.range) for c in configurations]
        )
        # An excluding bound is stronger than the scores, whose posterior has too wide a tail.
        excluded = [not slo.is_met_by(slo.best(c.accuracy)) for c in configurations]
        return np.asarray(np.where(excluded, 0.0, probabilities))

    @cached_property
    def more_items(self) -> Mapping[int, int]:
        """Configuration -> number of items to add to the data set until it is guaranteed to meet the accuracy SLO.

        The number suffices in about half of the cases. It is given for each configuration that is fast enough and
        misses the SLO on all items with a mean that meets it.
        """
        slo, population = self.query.slos.accuracy, self.arrays.population
        if slo is None or self.arrays.score_population == population:
            return {}
        rows = np.flatnonzero((self.shortfall > 0) & (self.violation <= 0)).tolist()
        measured = {row: c for row in rows if len((c := self.arrays.configurations[row]).items) == population}
        meeting = {row: c for row, c in measured.items() if slo.margin(c.accuracy.value) > 0}
        low, high = self._pipeline.metric.range
        more: dict[int, int] = {}
        for row, configuration in meeting.items():
            mean, scores = configuration.accuracy.value, configuration.scores
            variance = shrunk_variance(float(((scores - scores.mean()) ** 2).sum()), population, high - low)
            margin, width = slo.margin(mean), abs(slo.worst(configuration.accuracy) - mean)
            needed = items_until_bounded(population, margin, width, variance, high - low)
            more[row] = max(math.ceil(needed) - population, 1)
        return more

    @cached_property
    def measured_items(self) -> Mapping[Configuration, MeasuredItems]:
        """Configuration -> items that it was measured on, and those that the data set lacks."""
        return {
            measured.configuration: MeasuredItems(len(measured.items), self.more_items.get(row))
            for row, measured in enumerate(self.arrays.configurations)
        }

    def cheapest(self) -> PlanArrays:
        """Return the non-dominated plans that meet the accuracy and latency SLOs, at any cost."""
        promising = np.flatnonzero((self.shortfall <= 0) & (self.violation <= 0))
        self.considered["configurations that miss the accuracy SLO"] = int((self.shortfall > 0).sum())
        self.considered["configurations that miss the latency SLO"] = len(self.accurate) - len(promising)
        limits = Limits.of(self.space, cost=False)
        return nondominated_plans(self.space, promising, limits, self.settings.max_labels, self.considered)

    def with_margin(self, chosen: PlanArrays) -> PlanArrays:
        """Return high-margin plans, by ascending cost with dedicated replicas.

        They use more resources than some of `chosen` but meet an SLO with a larger margin; the settings limit their
        number.
        """
        space, settings = self.space, self.settings
        if not settings.max_margin_plans or (space.query.slos.latency is None and space.query.slos.accuracy is None):
            return PlanArrays.none(space)
        measure = PlanMetrics.of(space, self.shortfall, settings.margin_tolerance)
        promising = np.flatnonzero((self.shortfall <= 0) & (self.violation <= 0))
        high_margin = high_margin_plans(space, promising, Limits.of(space), settings.max_labels, measure)
        high_margin = high_margin.without(chosen)
        self.considered["high-margin plans"] = high_margin.plans.count
        selected = select_high_margin(high_margin, space.columns.shared_cost, settings.max_margin_plans)
        self.considered["high-margin plans excluded from the frontier"] = high_margin.plans.count - len(selected)
        plans = high_margin.plans.take(selected)
        return plans.take(np.argsort(plans.resources[:, space.columns.dedicated_cost], kind="stable"))

    def guaranteed(self, plans: PlanArrays) -> tuple[PlanCandidate, ...]:
        """Return the plans whose estimates guarantee every SLO."""
        candidates = (self.candidate(plans, index) for index in range(plans.count))
        return tuple(candidate for candidate in candidates if not candidate.estimate.violations(self.query.slos))

    def min_usage_plans(
        self, configurations: Sequence[int], column: int, *, cost: bool
    ) -> Iterator[PlanCandidate | None]:
        """Yield for each configuration the plan that meets the latency SLO at minimum usage of a resource column.

        None without a plan. With `cost`, plans must meet the cost SLO too.
        """
        fast_enough = sorted(index for index in configurations if self.violation[index] <= 0)
        limits = Limits.of(self.space, cost=cost)
        plans = cheapest_plans(
            self.space, np.array(fast_enough, dtype=np.int64), limits, self.settings.max_labels, column
        )
        for index in configurations:
            yield self.candidate(plans[index], 0) if index in plans else None

    def fastest(self, configurations: IntArray) -> PlanCandidate | None:
        """Return the fastest plan of `configurations` that meets the cost SLO, or None."""
        limits = Limits.of(self.space, latency=False)
        fastest = fastest_plan(self.space, configurations, limits, self.settings.max_labels)
        return None if fastest is None else self.candidate(fastest[0], 0)

    def fits(self) -> bool:
        """Return whether any plan of any configuration fits in the pools and links, regardless of latency and cost."""
        everything = np.arange(len(self.arrays.configurations))
        limits = Limits.of(self.space, latency=False, cost=False)
        return fastest_plan(self.space, everything, limits, self.settings.max_labels) is not None

    def candidate(self, plans: PlanArrays, index: int) -> PlanCandidate:
        profile = self.arrays.configurations[int(plans.configuration[index])]
        candidate = self.estimators.of(profile).candidate(plans.plan(self._names, index))
        return candidate.for_query(self.query.name)

    def cheapest_of(self, plans: PlanArrays, column: int) -> PlanCandidate:
        """Return the plan with minimum usage of a resource column."""
        return self.candidate(plans, int(plans.resources[:, column].argmin()))
