"""What the plans of every configuration cost each query, if its accuracy sufficed.

What a query's best plan is depends on what the others leave of the pools. Costs are therefore looked at in several
*situations*: everything is free, and for each pool that the query may use: that one is full; each with the cost fully
shared and alone. Plans keep the query's latency and cost objectives; where there is none, the cost is infinite.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import Percentile
from circinus.estimation.tails import TailAllowance
from circinus.planning.cheapest import cheapest_plans, cheapest_situations
from circinus.planning.limits import Limits
from circinus.planning.profile_arrays import ProfileArrays, compile_profile
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.planning.space import SearchSpace, compile_query
from circinus.profiling import PipelineProfile
from circinus.spec import Configuration, Network, Pipeline, Query

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NO_ALLOWANCE = 1.0 - 1e-9
"""A risk so great that no allowance is made for few items."""
KINDS = 2
"""Costs are fully shared and alone: what a query will pay lies between."""


def least_costs(
    pipeline: Pipeline,
    queries: Sequence[Query],
    profile: PipelineProfile,
    network: Network,
    listed: Sequence[Configuration],
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> tuple[FloatArray, ...]:
    """For each query (k, s) what no plan of a configuration undercuts, USD per hour.

    Latencies are taken as the items show them, without the allowance for few items: more items may show that it was not
    needed.

    Args:
        pipeline: which pipeline.
        queries: on it.
        profile: configurations, measured or predicted, all on the same items; accuracies play no part.
        network: where they may run.
        listed: k configurations; those the profile lacks have no plan.
        settings: of the search for plans.
    """
    place = {configuration: number for number, configuration in enumerate(listed)}
    compiled: dict[Percentile, ProfileArrays] = {}
    found = []
    for query in queries:
        percentile = latency_percentile(query)
        percentile = replace(percentile, allowance=TailAllowance(percentile.percentile, _NO_ALLOWANCE))
        if percentile not in compiled:
            compiled[percentile] = compile_profile(pipeline, profile, percentile, _dtype(settings))
        space = compile_query(query, network, compiled[percentile], settings)
        costs = np.full((len(listed), situations(space)), np.inf)
        if space.columns.pools:
            rows = np.array([place[c.configuration] for c in space.arrays.configurations], dtype=np.int64)
            costs[rows] = cheapest_situations(space, np.arange(len(rows)), Limits.of(space), settings.max_labels)
        found.append(costs)
    return tuple(found)


def sure_costs(
    pipeline: Pipeline,
    queries: Sequence[Query],
    profile: PipelineProfile,
    network: Network,
    listed: Sequence[Configuration],
    sure: NDArray[np.bool_],
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> tuple[FloatArray, ...]:
    """For each query (k, s) what the cheapest plan of a sure configuration costs, USD per hour; infinite for others.

    Args:
        pipeline: which pipeline.
        queries: q, on it.
        profile: what was measured; accuracies play no part.
        network: where configurations may run.
        listed: k configurations.
        sure: (k, q) of which configurations costs are wanted for which query.
        settings: of the search for plans.
    """
    place = {configuration: number for number, configuration in enumerate(listed)}
    wanted = {listed[int(number)] for number in np.flatnonzero(sure.any(axis=1))}
    kept = replace(profile, configurations=tuple(c for c in profile.usable if c.configuration in wanted))
    compiled: dict[Percentile, ProfileArrays] = {}
    found = []
    for number, query in enumerate(queries):
        percentile = latency_percentile(query)
        if percentile not in compiled and kept.configurations:
            compiled[percentile] = compile_profile(pipeline, kept, percentile, _dtype(settings))
        pools = len(network.pools_for(query.source))
        costs = np.full((len(listed), KINDS * (1 + pools)), np.inf)
        if pools and kept.configurations:
            space = compile_query(query, network, compiled[percentile], settings)
            rows = np.array([place[c.configuration] for c in space.arrays.configurations], dtype=np.int64)
            asked = np.flatnonzero(sure[rows, number])
            costs[rows[asked]] = _exactly(space, asked, settings.max_labels)
        found.append(costs)
    return tuple(found)


def situations(space: SearchSpace) -> int:
    """s"""
    return KINDS * (1 + len(space.columns.pools))


def _exactly(space: SearchSpace, configurations: IntArray, max_labels: int) -> FloatArray:
    """(configurations, s)"""
    found = np.full((len(configurations), situations(space)), np.inf)
    for row, configuration in enumerate(configurations):
        plans = cheapest_plans(space, configuration[None], Limits.of(space), max_labels, Counter())
        costs = plans.resources[:, [space.columns.shared_cost, space.columns.alone_cost]]
        for avoided in range(-1, len(space.columns.pools)):
            free = (plans.pools != avoided).all(axis=1)
            if free.any():
                found[row, KINDS * (avoided + 1) : KINDS * (avoided + 2)] = costs[free].min(axis=0)
    return found


def _dtype(settings: SearchSettings) -> type[np.floating]:
    """As the search for plans does."""
    return np.float32 if settings.tolerance > 0 else np.float64
