"""One query, laid out so that its plans can be searched under its objectives or without one of them."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import IntArray
from circinus.estimation import Estimator, PlanCandidate
from circinus.estimation.slo_probability import accuracy_slo_probability
from circinus.planning.high_margin_plans import high_margin_plans, select_high_margin
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.plan_metrics import PlanMetrics
from circinus.planning.plan_search import cheapest_plan, fastest_plan, min_latency_s, nondominated_plans
from circinus.planning.profile_arrays import ProfileArrays
from circinus.planning.search_space import Limits, compile_query
from circinus.planning.settings import SearchSettings
from circinus.profiling import Interval
from circinus.specification import AccuracySlo, Network, Pipeline, Query

FloatArray = NDArray[np.floating]

_ROUNDING = 1e-6
"""What the bounds of single precision may be off by."""


class QuerySearch:
    """The searches of one query. Configurations are indexes into those of `arrays`."""

    def __init__(
        self, query: Query, pipeline: Pipeline, arrays: ProfileArrays, network: Network, settings: SearchSettings
    ) -> None:
        self.query = query
        self.arrays = arrays
        self.settings = settings
        self.considered: Counter[str] = Counter(configurations=len(arrays.configurations))
        self.space = compile_query(query, network, arrays, settings)
        for table in self.space.options:
            self.considered["options that fit no pool"] += table.ineligible
            self.considered["options beaten in their pool"] += table.dominated
        self._pipeline = pipeline
        self._network = network
        self._estimators: dict[int, Estimator] = {}
        self.shortfall: FloatArray = np.array(
            [_shortfall(c.accuracy, query.slos.accuracy) for c in arrays.configurations]
        )
        """(configurations,) by how much the promised accuracy misses the objective; at most 0 where it does not."""

    @property
    def accurate(self) -> IntArray:
        """The configurations that are promised to meet the accuracy objective."""
        return np.flatnonzero(self.shortfall <= 0)

    @cached_property
    def violation(self) -> FloatArray:
        """(configurations,) by which share of the latency limit even the fastest plan misses it at least; at most 0
        where there may be a plan that keeps it. Infinite where no plan fits in the pools."""
        if self.query.slos.latency is None:
            return np.zeros(len(self.arrays.configurations))
        everything = np.arange(len(self.arrays.configurations))
        return min_latency_s(self.space, everything) / (self.space.limit_s * (1 + _ROUNDING)) - 1

    @cached_property
    def accuracy_probability(self) -> FloatArray:
        """(configurations,) how likely each keeps the accuracy objective."""
        slo, metric = self.query.slos.accuracy, self._pipeline.metric
        if slo is None:
            return np.ones(len(self.arrays.configurations))
        known, population = self.arrays.configurations, self.arrays.population
        odds = np.array([accuracy_slo_probability(found.scores, population, slo, metric.range) for found in known])
        # A bound that rules it out says more than the scores do, which beliefs of the tail are too wide for.
        hopeless = [not slo.is_met_by(c.accuracy.upper if slo.comparison == ">=" else c.accuracy.lower) for c in known]
        return np.asarray(np.where(hopeless, 0.0, odds))

    def cheapest(self) -> PlanArrays:
        """The plans of all accurate configurations that keep the latency objective and take least, at any cost."""
        hopeful = np.flatnonzero((self.shortfall <= 0) & (self.violation <= 0))
        self.considered["configurations that miss the accuracy objective"] = int((self.shortfall > 0).sum())
        self.considered["configurations that miss the latency objective"] = len(self.accurate) - len(hopeful)
        limits = Limits.of(self.space, cost=False)
        return nondominated_plans(self.space, hopeful, limits, self.settings.max_labels, self.considered)

    def with_margin(self, chosen: PlanArrays) -> PlanArrays:
        """Of the plans that take more than some of `chosen` and keep an objective with more margin, as many as the
        settings say; by ascending cost alone."""
        space, settings = self.space, self.settings
        if not settings.max_margin_plans or (space.query.slos.latency is None and space.query.slos.accuracy is None):
            return PlanArrays.none(space)
        measure = PlanMetrics.of(space, self.shortfall, settings.margin_tolerance)
        hopeful = np.flatnonzero((self.shortfall <= 0) & (self.violation <= 0))
        found = high_margin_plans(space, hopeful, Limits.of(space), settings.max_labels, measure)
        found = found.without(chosen)
        self.considered["plans with more margin"] = found.plans.count
        kept = select_high_margin(found, space.columns.shared_cost, settings.max_margin_plans)
        self.considered["plans with more margin left out of the frontier"] = found.plans.count - len(kept)
        plans = found.plans.take(kept)
        return plans.take(np.argsort(plans.resources[:, space.columns.alone_cost], kind="stable"))

    def promised(self, plans: PlanArrays) -> tuple[PlanCandidate, ...]:
        """Those of the plans whose estimates promise every objective."""
        candidates = (self.candidate(plans, index) for index in range(plans.count))
        return tuple(candidate for candidate in candidates if not candidate.estimate.violations(self.query.slos))

    def least(self, configuration: int, column: int, *, cost: bool) -> PlanCandidate | None:
        """The plan of one configuration that keeps the latency objective and takes least in a resource column.

        Args:
            configuration: the configuration.
            column: the column.
            cost: whether the plan must keep the cost objective, too.

        Returns:
            None where no plan keeps them.
        """
        limits = Limits.of(self.space, cost=cost)
        found = cheapest_plan(self.space, np.array([configuration]), limits, self.settings.max_labels, column)
        return None if found is None else self.candidate(found, 0)

    def fastest(self, configurations: IntArray) -> PlanCandidate | None:
        """The fastest plan of `configurations` that keeps the cost objective, or None."""
        limits = Limits.of(self.space, latency=False)
        found = fastest_plan(self.space, configurations, limits, self.settings.max_labels)
        return None if found is None else self.candidate(found[0], 0)

    def fits(self) -> bool:
        """Whether any plan of any configuration fits in the pools and links, whatever it promises."""
        everything = np.arange(len(self.arrays.configurations))
        limits = Limits.of(self.space, latency=False, cost=False)
        return fastest_plan(self.space, everything, limits, self.settings.max_labels) is not None

    def candidate(self, plans: PlanArrays, index: int) -> PlanCandidate:
        """One plan with its estimate."""
        configuration = int(plans.configuration[index])
        estimator = self._estimators.get(configuration)
        if estimator is None:
            estimator = Estimator(
                self.query,
                self._pipeline,
                self.arrays.configurations[configuration],
                self._network,
                usable_link_share=self.settings.usable_link_share,
                alike=next(iter(self._estimators.values()), None),
                population=self.arrays.population,
            )
            self._estimators[configuration] = estimator
        return estimator.candidate(plans.plan(self.space, index))

    def cheapest_of(self, plans: PlanArrays, column: int) -> PlanCandidate:
        """Of some plans the one that takes least in a resource column."""
        return self.candidate(plans, int(plans.resources[:, column].argmin()))


def _shortfall(accuracy: Interval, slo: AccuracySlo | None) -> float:
    if slo is None:
        return 0.0
    return slo.threshold - accuracy.lower if slo.comparison == ">=" else accuracy.upper - slo.threshold
