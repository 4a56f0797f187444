"""What the plans of every configuration cost each query, if its accuracy sufficed.

What a query's best plan is depends on what the others leave of the pools. Costs are therefore looked at in several
*situations*: everything is free, and for each pool that the query may use: that one is full; each with the cost fully
shared and alone. Plans keep the query's latency and cost objectives; where there is none, the cost is infinite.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from circinus.arrays import FloatArray, IntArray
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import PercentileEstimator, SmallSampleInflation
from circinus.planning.plan_search import cost_by_pool_scenario, nondominated_plans
from circinus.planning.pool_eligibility import pin_mask
from circinus.planning.profile_arrays import ProfileArrays, compile_profile
from circinus.planning.search_space import Limits, SearchSpace, compile_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query

_NO_ALLOWANCE = 1.0 - 1e-9
"""A risk so great that no allowance is made for few items."""
_LEAST_S = 1e-12
_TOO_MANY = 0.05
"""Probability with which more slow items than this are among those measured."""
KINDS = 2
"""Costs are fully shared and alone: what a query will pay lies between."""


def min_plan_costs(
    pipeline: Pipeline,
    queries: Sequence[Query],
    profile: PipelineProfile,
    network: Network,
    listed: Sequence[Configuration],
    settings: SearchSettings = DEFAULT_SETTINGS,
    *,
    exactly: bool = False,
) -> tuple[FloatArray, ...]:
    """For each query (k, s) what no plan of a configuration undercuts, USD per hour.

    Latencies are taken as more items may show them: without the allowance for few items, and without the slowest items,
    which may be rarer than it seems.

    Args:
        pipeline: which pipeline.
        queries: on it.
        profile: configurations, measured or predicted, all on the same items; accuracies play no part.
        network: where they may run.
        listed: k configurations; those the profile lacks have no plan.
        settings: of the search for plans.
        exactly: whether to give the costs of the cheapest plans themselves, which takes many times longer.
    """
    place = {configuration: number for number, configuration in enumerate(listed)}
    compiled: dict[PercentileEstimator, ProfileArrays] = {}
    found = []
    for query in queries:
        percentile = _without_allowance(latency_percentile(query))
        if percentile not in compiled:
            calmed = _calmed(profile, percentile.percentile)
            compiled[percentile] = compile_profile(pipeline, calmed, percentile, _dtype(settings))
        space = compile_query(query, network, compiled[percentile], settings)
        costs = np.full((len(listed), pool_scenario_count(space)), np.inf)
        if space.columns.pools:
            rows = np.array([place[c.configuration] for c in space.arrays.configurations], dtype=np.int64)
            everything = np.arange(len(rows))
            if exactly:
                costs[rows] = _exactly(space, everything, settings.max_labels)
            else:
                costs[rows] = cost_by_pool_scenario(space, everything, Limits.of(space), settings.max_labels)
        costs[~pin_mask(query, listed)] = np.inf
        found.append(costs)
    return tuple(found)


class PlanCostCache:
    """What the cheapest plans of measured configurations cost, by all their items; computed once as long as nothing was
    learnt of them."""

    def __init__(
        self,
        pipeline: Pipeline,
        queries: Sequence[Query],
        network: Network,
        settings: SearchSettings = DEFAULT_SETTINGS,
    ) -> None:
        """Nothing is computed yet.

        Args:
            pipeline: which pipeline.
            queries: q, on it.
            network: where configurations may run.
            settings: of the search for plans.
        """
        self._pipeline, self._queries, self._network, self._settings = pipeline, queries, network, settings
        self._known: dict[tuple[int, Configuration], tuple[object, FloatArray]] = {}

    def of(
        self, profile: PipelineProfile, listed: Sequence[Configuration], asked: NDArray[np.bool_]
    ) -> tuple[FloatArray, ...]:
        """For each query (k, s) costs, USD per hour; infinite where they are not wanted, and without a plan.

        Args:
            profile: what was measured; accuracies play no part.
            listed: k configurations.
            asked: (k, q) of which configurations costs are wanted for which query.
        """
        usable = {found.configuration: found for found in profile.usable}
        versions = {configuration: _version(found) for configuration, found in usable.items()}
        wanted = [(int(q), listed[int(k)]) for k, q in np.argwhere(asked) if listed[int(k)] in usable]
        new = [(q, c) for q, c in wanted if self._known.get((q, c), (None,))[0] != versions[c]]
        if new:
            self._compute(
                replace(profile, configurations=tuple(usable[c] for c in dict.fromkeys(c for _, c in new))),
                new,
                versions,
            )
        place = {configuration: number for number, configuration in enumerate(listed)}
        shapes = [(len(listed), KINDS * (1 + len(self._network.pools_for(q.source)))) for q in self._queries]
        found = tuple(np.full(shape, np.inf) for shape in shapes)
        for number, configuration in wanted:
            found[number][place[configuration]] = self._known[number, configuration][1]
        return found

    def _compute(
        self,
        profile: PipelineProfile,
        new: Sequence[tuple[int, Configuration]],
        versions: Mapping[Configuration, object],
    ) -> None:
        compiled: dict[PercentileEstimator, ProfileArrays] = {}
        for number in dict.fromkeys(number for number, _ in new):
            query = self._queries[number]
            percentile = latency_percentile(query)
            if percentile not in compiled:
                compiled[percentile] = compile_profile(self._pipeline, profile, percentile, _dtype(self._settings))
            space = compile_query(query, self._network, compiled[percentile], self._settings)
            its = {configuration for q, configuration in new if q == number}
            asked = [n for n, c in enumerate(space.arrays.configurations) if c.configuration in its]
            costs = _exactly(space, np.array(asked, dtype=np.int64), self._settings.max_labels)
            for row, index in enumerate(asked):
                configuration = space.arrays.configurations[index].configuration
                self._known[number, configuration] = versions[configuration], costs[row]


def _without_allowance(percentile: PercentileEstimator) -> PercentileEstimator:
    return replace(percentile, allowance=SmallSampleInflation(percentile.percentile, _NO_ALLOWANCE))


def _version(found: ConfigurationProfile) -> object:
    """Differs where what is known of a configuration's operators does."""
    operators = found.operators.values()
    return len(found.items), tuple((o.peak_memory_bytes, tuple(sorted(o.batch_ratio.items()))) for o in operators)


def pool_scenario_count(space: SearchSpace) -> int:
    """s"""
    return KINDS * (1 + len(space.columns.pools))


def _exactly(space: SearchSpace, configurations: IntArray, max_labels: int) -> FloatArray:
    """(configurations, s)"""
    found = np.full((len(configurations), pool_scenario_count(space)), np.inf)
    for row, configuration in enumerate(configurations if space.columns.pools else ()):
        plans = nondominated_plans(space, configuration[None], Limits.of(space), max_labels, Counter())
        costs = plans.resources[:, [space.columns.shared_cost, space.columns.alone_cost]]
        for avoided in range(-1, len(space.columns.pools)):
            free = (plans.pools != avoided).all(axis=1)
            if free.any():
                found[row, KINDS * (avoided + 1) : KINDS * (avoided + 2)] = costs[free].min(axis=0)
    return found


def _calmed(profile: PipelineProfile, percentile: float) -> PipelineProfile:
    """Service times without the slowest items, which may be rarer than the percentile; their means stay as they are.

    Of n items the slowest k - 1 take what the k-th slowest takes, with the least k that as many or more are beyond the
    true percentile with a probability of at most `_TOO_MANY`.
    """
    population = profile.dataset_items - profile.held_out_items
    calmed: dict[int, OperatorProfile] = {}

    def calm(operator: OperatorProfile) -> OperatorProfile:
        if id(operator) not in calmed:
            slowest = np.sort(operator.service_s)[::-1]
            rank = min(hypergeometric_critical_count(len(slowest), percentile, population), len(slowest))
            service_s = np.minimum(operator.service_s, slowest[rank - 1])
            same_mean = float(operator.service_s.mean()) / max(float(service_s.mean()), _LEAST_S)
            calmed[id(operator)] = replace(operator, service_s=service_s * same_mean)
        return calmed[id(operator)]

    return replace(
        profile,
        configurations=tuple(
            replace(found, operators={name: calm(operator) for name, operator in found.operators.items()})
            for found in profile.configurations
        ),
    )


@lru_cache(maxsize=1024)
def hypergeometric_critical_count(items: int, percentile: float, population: int) -> int:
    """The least number of items that as many or more are beyond the percentile of with at most `_TOO_MANY`; from 1.

    The items are drawn from the population without replacement, so that the number is hypergeometric.
    """
    slow = round((1.0 - percentile / 100.0) * population)
    tail = 1.0
    for count in range(items + 1):
        if tail <= _TOO_MANY:
            return count
        if count <= slow and items - count <= population - slow:
            logs = _log_ways(slow, count) + _log_ways(population - slow, items - count) - _log_ways(population, items)
            tail -= math.exp(logs)
    return items + 1


def _log_ways(number: int, chosen: int) -> float:
    return math.lgamma(number + 1) - math.lgamma(chosen + 1) - math.lgamma(number - chosen + 1)


def _dtype(settings: SearchSettings) -> type[np.floating]:
    """As the search for plans does."""
    return np.float32 if settings.tolerance > 0 else np.float64
