"""Plan costs of every configuration for each query, regardless of accuracy.

A query's best plan depends on what other queries leave of pools and links. Costs are therefore computed in several
*situations*: with all pools; without each of the pools that the query may use in turn; and with scarce links, where
they count times the share of the bandwidth that a plan takes. Each is computed with the cost fully shared and
dedicated. Plans meet the query's latency and cost SLOs; without a plan the cost is infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from circinus.arrays import BoolArray, FloatArray, IntArray
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import PercentileEstimator, SmallSampleInflation
from circinus.planning.joint_search_space import joint_spaces
from circinus.planning.plan_search import cost_by_situation, min_cost_by_situation
from circinus.planning.pool_eligibility import pin_mask
from circinus.planning.profile_arrays import ProfileArrays, compile_profile
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import ConfigurationProfile, OperatorProfile, PipelineProfile
from circinus.specification import Configuration, Network, Pipeline, Query
from circinus.statistics.counts import hypergeometric_critical_count

_NO_ALLOWANCE = 1.0 - 1e-9
"""Risk at which the small-sample allowance vanishes."""
_MIN_S = 1e-12
_MAX_TAIL_PROBABILITY = 0.05
"""Maximum probability that more slow items than the critical count are among the measured ones."""
KINDS = 2
"""Kinds of cost: fully shared and dedicated, which bound the cost of a query."""


def min_plan_costs(
    pipeline: Pipeline,
    queries: Sequence[Query],
    profile: PipelineProfile,
    networks: Sequence[Network],
    configurations: Sequence[Configuration],
    settings: SearchSettings = DEFAULT_SETTINGS,
    *,
    requested: BoolArray | None = None,
    exact: bool = False,
    check_time: Callable[[], None] = lambda: None,
) -> tuple[FloatArray, ...]:
    """Return, for each query, (k, s) lower bounds of the cost of plans, USD per hour.

    Latencies are optimistic: without the small-sample allowance, and without the slowest items, which may be rarer than
    in the sample.

    Args:
        profile: configurations, measured or predicted, all on the same items; accuracies are ignored.
        networks: of each query.
        configurations: k configurations; those missing in the profile have no plan.
        requested: (k, q) whether a configuration's cost is requested for a query, all by default; else it is infinite.
        exact: whether to return the costs of the cheapest plans instead of bounds, which takes many times longer.
        check_time: callback between parts of the work; may raise `DecisionTimeoutError`.
    """
    row_of = {configuration: number for number, configuration in enumerate(configurations)}
    masks = [pin_mask(query, configurations) for query in queries]
    if requested is not None:
        masks = [mask & requested[:, q] for q, mask in enumerate(masks)]
    costs = tuple(
        np.full((len(configurations), situation_count(query, network)), np.inf)
        for query, network in zip(queries, networks, strict=True)
    )
    requested_of = [{configurations[row] for row in np.flatnonzero(mask).tolist()} for mask in masks]
    for q, configuration, own in _costs_of_requested(
        pipeline,
        queries,
        networks,
        [_without_allowance(latency_percentile(query)) for query in queries],
        lambda percentile: _without_slowest(profile, percentile.percentile),
        requested_of,
        settings,
        check_time,
        exact=exact,
    ):
        costs[q][row_of[configuration]] = own
    return costs


def _costs_of_requested(
    pipeline: Pipeline,
    queries: Sequence[Query],
    networks: Sequence[Network],
    percentiles: Sequence[PercentileEstimator],
    profile_for: Callable[[PercentileEstimator], PipelineProfile],
    requested: Sequence[Collection[Configuration]],
    settings: SearchSettings,
    check_time: Callable[[], None],
    *,
    exact: bool,
) -> Iterator[tuple[int, Configuration, FloatArray]]:
    """Yield (s,) costs of configurations requested for queries, with the number of the query."""
    search = min_cost_by_situation if exact else cost_by_situation
    for percentile in dict.fromkeys(
        own for own, any_requested in zip(percentiles, requested, strict=True) if any_requested
    ):
        check_time()
        numbers = [q for q, own in enumerate(percentiles) if own == percentile]
        arrays = compile_profile(pipeline, profile_for(percentile), percentile, settings.dtype)
        spaces = joint_spaces(
            [queries[q] for q in numbers],
            [networks[q] for q in numbers],
            arrays,
            [_indexes(arrays, requested[q]) for q in numbers],
            settings,
            check_time,
        )
        for joint in spaces:
            costs = search(joint.space, joint.rows, joint.limits, settings.max_labels, check_time)
            costs /= joint.cost_scale[:, None]
            for query, index, own in zip(joint.queries.tolist(), joint.configurations.tolist(), costs, strict=True):
                yield numbers[query], arrays.configurations[index].configuration, own


def _indexes(arrays: ProfileArrays, configurations: Collection[Configuration]) -> IntArray:
    """Return the ascending indexes of configurations in the arrays, as far as these have them."""
    indexes = [n for n, own in enumerate(arrays.configurations) if own.configuration in configurations]
    return np.array(indexes, dtype=np.int64)


class PlanCostCache:
    """Cache of the costs of the cheapest plans of measured configurations on all their items."""

    def __init__(
        self,
        pipeline: Pipeline,
        queries: Sequence[Query],
        networks: Sequence[Network],
        settings: SearchSettings = DEFAULT_SETTINGS,
    ) -> None:
        self._pipeline, self._queries, self._networks, self._settings = pipeline, queries, networks, settings
        self._costs: dict[tuple[int, Configuration], tuple[object, FloatArray]] = {}

    def of(
        self,
        profile: PipelineProfile,
        configurations: Sequence[Configuration],
        requested: BoolArray,
        check_time: Callable[[], None] = lambda: None,
    ) -> tuple[FloatArray, ...]:
        """Return (k, s) costs for each query, USD per hour; infinite if not requested, and without a plan.

        Args:
            profile: measurements; accuracies are ignored.
            configurations: k configurations.
            requested: (k, q) whether the cost of a configuration is requested for a query.
        """
        usable = {measured.configuration: measured for measured in profile.usable}
        versions = {configuration: _version(measured) for configuration, measured in usable.items()}
        requests = [
            (int(q), configurations[int(k)]) for k, q in np.argwhere(requested) if configurations[int(k)] in usable
        ]
        missing = [(q, c) for q, c in requests if self._costs.get((q, c), (None,))[0] != versions[c]]
        if missing:
            self._compute(profile, missing, versions, check_time)
        row_of = {configuration: number for number, configuration in enumerate(configurations)}
        costs = tuple(
            np.full((len(configurations), situation_count(query, network)), np.inf)
            for query, network in zip(self._queries, self._networks, strict=True)
        )
        for number, configuration in requests:
            if (number, configuration) in self._costs:  # else no pool is open to the query
                costs[number][row_of[configuration]] = self._costs[number, configuration][1]
        return costs

    def _compute(
        self,
        profile: PipelineProfile,
        missing: Sequence[tuple[int, Configuration]],
        versions: Mapping[Configuration, object],
        check_time: Callable[[], None],
    ) -> None:
        missing_of: list[set[Configuration]] = [set() for _ in self._queries]
        for number, configuration in missing:
            missing_of[number].add(configuration)
        every = set[Configuration]().union(*missing_of)
        measured = tuple(own for own in profile.configurations if own.configuration in every)
        for number, configuration, costs in _costs_of_requested(
            self._pipeline,
            self._queries,
            self._networks,
            [latency_percentile(query) for query in self._queries],
            lambda _: replace(profile, configurations=measured),
            missing_of,
            self._settings,
            check_time,
            exact=True,
        ):
            self._costs[number, configuration] = versions[configuration], costs


def _without_allowance(percentile: PercentileEstimator) -> PercentileEstimator:
    return replace(percentile, allowance=SmallSampleInflation(percentile.percentile, _NO_ALLOWANCE))


def _version(measured: ConfigurationProfile) -> object:
    """Return a key that changes with the measurements of the configuration's operators."""
    operators = measured.operators.values()
    return len(measured.items), tuple((o.peak_memory_bytes, tuple(sorted(o.batch_ratio.items()))) for o in operators)


def situation_count(query: Query, network: Network) -> int:
    """Return the number s of situations and cost kinds."""
    return KINDS * (2 + len(network.pools_for(query.source)))


def _without_slowest(profile: PipelineProfile, percentile: float) -> PipelineProfile:
    """Return the profile with service times up to their `percentile_floor`; means are preserved."""

    def trim(operator: OperatorProfile) -> OperatorProfile:
        limit_s = percentile_floor(operator.service_s, percentile, profile.population)
        service_s = np.minimum(operator.service_s, limit_s)
        same_mean = float(operator.service_s.mean()) / max(float(service_s.mean()), _MIN_S)
        return operator.with_totals(service_s * same_mean)

    return profile.with_operators(trim)


def percentile_floor(values: FloatArray, percentile: float, population: int) -> float:
    """Return a lower confidence bound of the percentile of a population from which (n,) values were drawn.

    It is the k-th largest, with the minimum k such that k or more of n values are beyond the percentile with a
    probability of at most `_MAX_TAIL_PROBABILITY`. It holds for any distribution (David & Nagaraja, Order Statistics,
    2003, section 7.1). If no k suffices, it is the smallest value.
    """
    slow = round((1.0 - percentile / 100.0) * population)
    count = hypergeometric_critical_count(len(values), population, slow, _MAX_TAIL_PROBABILITY)
    rank = max(len(values) - count, 0)
    return float(np.partition(values, rank)[rank])
