"""Planning one query, and each of many."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

import numpy as np

from circinus.arrays import IntArray
from circinus.errors import PlanningError
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import PercentileEstimator
from circinus.planning.column_pool import ColumnPool
from circinus.planning.frontier import BestEffortPlan, Frontier
from circinus.planning.near_misses import best_effort_plan, near_misses
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.pool_eligibility import no_profile_matches_pins, pinned_profile
from circinus.planning.profile_arrays import ProfileArrays, compile_configurations, compile_profile
from circinus.planning.query_search import QuerySearch
from circinus.planning.relaxations import explain_infeasible, single_relaxations
from circinus.planning.resource_columns import ResourceColumns
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import MIN_ITEMS, PipelineProfile
from circinus.specification import Network, Pipeline, Query, Specification

_LEAST_ITEMS = 2
"""Items below which even a guess has no spread to go by."""


def best_effort_frontier(
    query: Query, pipeline: Pipeline, profile: PipelineProfile, network: Network, settings: SearchSettings
) -> Frontier:
    """A frontier without candidates, with the best plan so far as the few items tell."""
    most = max((len(found.items) for found in profile.configurations), default=0)
    reason = (
        f"nothing can be promised on pipeline {profile.pipeline} yet: its configurations were measured on at most "
        f"{most} items, and promises take {MIN_ITEMS}"
    )
    best = _best(query, pipeline, profile, network, settings)
    if best is None:  # else that comes with the advice
        reason += "; measure for longer (circinus profile)"
    return Frontier(query, (), {}, (), (), reason, best_effort=best, measured=False)


def _best(
    query: Query, pipeline: Pipeline, profile: PipelineProfile, network: Network, settings: SearchSettings
) -> BestEffortPlan | None:
    known = tuple(found for found in profile.configurations if len(found.items) >= _LEAST_ITEMS)
    if not known or not settings.near_misses:
        return None
    arrays = compile_configurations(pipeline, profile, known, latency_percentile(query), np.float64)
    search = QuerySearch(query, pipeline, arrays, network, settings)
    return best_effort_plan(search) if search.space.columns.pools else None


def select_representatives(plans: PlanArrays, columns: ResourceColumns, max_plans: int) -> IntArray:
    """At most `max_plans` of the plans, for the matching to have a choice when resources are short.

    First the extremes: cheapest alone, cheapest fully shared, least use of each pool and link. Then in turn the
    cheapest plan of each placement and of each configuration, cheaper ones first. Then the cheapest of the rest.

    Returns:
        Indexes, by ascending cost alone.
    """
    cost = plans.resources[:, columns.alone_cost]
    by_cost = np.lexsort((plans.resources[:, columns.shared_cost], cost))
    if plans.count <= max_plans:
        return by_cost
    chosen: dict[int, None] = {}
    for column in _extreme_columns(columns):
        chosen[int(by_cost[plans.resources[by_cost, column].argmin()])] = None
    by_placement = by_cost[_first_of_each(plans.pools[by_cost])]
    by_configuration = by_cost[_first_of_each(plans.configuration[by_cost, None])]
    for pair in zip_longest(by_placement.tolist(), by_configuration.tolist()):
        chosen.update(dict.fromkeys(index for index in pair if index is not None))
    chosen.update(dict.fromkeys(by_cost.tolist()))
    kept = np.array(list(chosen)[:max_plans], dtype=np.int64)
    return kept[np.lexsort((plans.resources[kept, columns.shared_cost], cost[kept]))]


def _extreme_columns(columns: ResourceColumns) -> list[int]:
    found = [columns.alone_cost, columns.shared_cost]
    for pool in range(len(columns.pools)):
        found += range(*columns.shared(pool).indices(columns.count))
        found += range(*columns.alone(pool).indices(columns.count))
    return found + [columns.link(link) for link in range(len(columns.links))]


def _first_of_each(keys: IntArray) -> IntArray:
    """Where each distinct row of `keys` occurs first, ascending."""
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def plan_query(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    network: Network,
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> Frontier:
    """Find the frontier of `query`.

    Raises:
        PlanningError: the profile is of another pipeline, or its bounds are weaker than the query's risk asks for.
    """
    _check(query, profile)
    if not profile.usable:
        return best_effort_frontier(query, pipeline, profile, network, settings)
    left = pinned_profile(query, profile)
    if not left.usable:
        return no_profile_matches_pins(query, profile)
    return _plan(query, pipeline, _compile(query, pipeline, left, settings), network, settings)


def plan_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    settings: SearchSettings = DEFAULT_SETTINGS,
) -> Mapping[str, Frontier]:
    """The frontier of every query of `specification`, by query name, in the order of the specification.

    A query on a pipeline of which too little was measured to promise anything has no candidate.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> what was measured of it.
        settings: how to search.

    Raises:
        PlanningError: no infrastructure, no profile of a query's pipeline, or as `plan_query`.
    """
    if specification.infrastructure is None:
        raise PlanningError(
            "found no infrastructure, expected one document of kind Infrastructure; add it",
            code="specification.no_infrastructure",
        )
    network = Network(specification.infrastructure)
    compiled: dict[tuple[str, PercentileEstimator, object], ProfileArrays] = {}
    frontiers = {}
    for query in specification.queries:
        profile = profiles.get(query.pipeline)
        if profile is None:
            raise PlanningError(
                f"query {query.name}: found no profile of pipeline {query.pipeline}, expected one; "
                f"run `circinus profile`",
                code="profile.missing",
            )
        _check(query, profile)
        pipeline = specification.pipelines[query.pipeline]
        if not profile.usable:
            frontiers[query.name] = best_effort_frontier(query, pipeline, profile, network, settings)
            continue
        left = pinned_profile(query, profile)
        if not left.usable:
            frontiers[query.name] = no_profile_matches_pins(query, profile)
            continue
        key = (query.pipeline, latency_percentile(query), query.pinned_knobs)
        if key not in compiled:
            compiled[key] = _compile(query, pipeline, left, settings)
        frontiers[query.name] = _plan(query, pipeline, compiled[key], network, settings)
    return frontiers


def _compile(query: Query, pipeline: Pipeline, profile: PipelineProfile, settings: SearchSettings) -> ProfileArrays:
    # Where nothing may be lost, the search computes in the estimator's own precision.
    dtype = np.float32 if settings.tolerance > 0 else np.float64
    return compile_profile(pipeline, profile, latency_percentile(query), dtype)


def _check(query: Query, profile: PipelineProfile) -> None:
    if query.pipeline != profile.pipeline:
        raise PlanningError(
            f"query {query.name}: found a profile of pipeline {profile.pipeline}, expected one of {query.pipeline}",
            code="profile.other_pipeline",
        )
    if query.slos.accuracy is not None and query.risk < profile.risk:
        raise PlanningError(
            f"query {query.name}: found accuracy bounds that fail with probability {profile.risk:g}, expected at most "
            f"its risk of {query.risk:g}; profile the pipeline again for that risk, or raise the query's",
            code="profile.risk_too_high",
        )


def _plan(
    query: Query, pipeline: Pipeline, arrays: ProfileArrays, network: Network, settings: SearchSettings
) -> Frontier:
    search = QuerySearch(query, pipeline, arrays, network, settings)
    considered = search.considered
    if not search.space.columns.pools:
        return Frontier(query, (), considered, (), (), explain_infeasible(search, network, ()))
    without_cost = search.cheapest()
    plans = _affordable(search, without_cost)
    considered["plans beyond the cost objective"] = without_cost.count - plans.count
    considered["plans"] = plans.count
    listed = select_representatives(plans, search.space.columns, settings.max_plans)
    chosen = plans.take(listed)
    considered["plans left out of the frontier"] = plans.count - chosen.count
    # Plans within a rounding error of an objective are the estimator's to decide.
    promised = search.promised(chosen)
    with_margin = search.promised(search.with_margin(chosen)) if promised else ()
    explained = settings.near_misses > 0
    relaxations = () if promised else single_relaxations(search, without_cost)
    return Frontier(
        query=query,
        candidates=promised,
        considered={reason: count for reason, count in considered.items() if count},
        near_misses=near_misses(search, without_cost),
        relaxations=relaxations,
        reason="" if promised else explain_infeasible(search, network, relaxations),
        high_margin=with_margin,
        best_effort=best_effort_plan(search) if explained and not promised else None,
        unlisted=ColumnPool.of(search.space, plans, listed) if plans.count > chosen.count else None,
    )


def _affordable(search: QuerySearch, without_cost: PlanArrays) -> PlanArrays:
    """The plans that keep the cost objective."""
    slo = search.query.slos.cost
    if slo is None:
        return without_cost
    return without_cost.take(without_cost.resources[:, search.space.columns.shared_cost] <= slo.limit_usd_per_h)
