"""Planning one query, and each of many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from circinus.errors import PlanningError
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import PercentileEstimator
from circinus.planning.best_so_far import best_effort_plan
from circinus.planning.frontier import Frontier
from circinus.planning.left_out import ColumnPool
from circinus.planning.near_misses import near_misses
from circinus.planning.pins import no_profile_matches_pins, pinned_profile
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.profile_arrays import ProfileArrays, compile_profile
from circinus.planning.query_search import QuerySearch
from circinus.planning.relaxations import explain_infeasible, single_relaxations
from circinus.planning.selection import select_representatives
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.planning.too_early import best_effort_frontier
from circinus.profiling import PipelineProfile
from circinus.spec import Network, Pipeline, Query, Specification


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
        raise PlanningError("found no infrastructure, expected one document of kind Infrastructure; add it")
    network = Network(specification.infrastructure)
    compiled: dict[tuple[str, PercentileEstimator, object], ProfileArrays] = {}
    frontiers = {}
    for query in specification.queries:
        profile = profiles.get(query.pipeline)
        if profile is None:
            raise PlanningError(
                f"query {query.name}: found no profile of pipeline {query.pipeline}, expected one; "
                f"run `circinus profile`"
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
            f"query {query.name}: found a profile of pipeline {profile.pipeline}, expected one of {query.pipeline}"
        )
    if query.slos.accuracy is not None and query.risk < profile.risk:
        raise PlanningError(
            f"query {query.name}: found accuracy bounds that fail with probability {profile.risk:g}, expected at most "
            f"its risk of {query.risk:g}; profile the pipeline again for that risk, or raise the query's"
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
