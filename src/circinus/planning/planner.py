"""Entry points of planning: the frontier of one query or of every query of a specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest

import numpy as np

from circinus.arrays import IntArray
from circinus.errors import PlanningError
from circinus.estimation import PlanCandidate, QueryEstimators
from circinus.estimation.estimator import latency_percentile
from circinus.estimation.percentiles import PercentileEstimator
from circinus.planning.frontier import MEASUREMENTS, Frontier, query_kind
from circinus.planning.near_misses import (
    best_effort_plan,
    describe_isolated_limits,
    explain_infeasible,
    near_misses,
    single_relaxations,
)
from circinus.planning.plan_arrays import ColumnPool, PlanArrays
from circinus.planning.pool_eligibility import no_profile_matches_pins, pinned_profile
from circinus.planning.profile_arrays import ProfileArrays, compile_configurations, compile_profile
from circinus.planning.query_search import QuerySearch
from circinus.planning.resource_columns import ResourceColumns
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.planning.tie_order import by_cost
from circinus.profiling import MIN_ITEMS, PipelineProfile
from circinus.specification import Network, Pipeline, Query, SloKind, Specification

_MIN_BEST_EFFORT_ITEMS = 2
"""Minimum number of items for a best-effort estimate."""


def best_effort_frontier(
    query: Query, pipeline: Pipeline, profile: PipelineProfile, network: Network, settings: SearchSettings
) -> Frontier:
    """Return a frontier without candidates, with the best plan so far."""
    max_items = max((len(measured.items) for measured in profile.configurations), default=0)
    reason = (
        f"no guarantee is possible on pipeline {profile.pipeline} yet: its configurations are measured on at most "
        f"{max_items} items, but guarantees need {MIN_ITEMS}"
    )
    if profile.failed and not profile.configurations and not profile.unmeasured:
        first = profile.failed[0]
        reason = (
            f"all {len(profile.failed)} configurations of pipeline {profile.pipeline} failed when they were profiled: "
            f"{first.configuration}: {first.reason}"
        )
        return Frontier(query, (), {}, (), (), reason, binding=(MEASUREMENTS,))
    frontier = Frontier(query, (), {}, (), (), reason, binding=(MEASUREMENTS,))
    usable = tuple(c for c in profile.configurations if len(c.items) >= _MIN_BEST_EFFORT_ITEMS)
    if usable and settings.near_misses:
        arrays = compile_configurations(pipeline, profile, usable, latency_percentile(query), np.float64)
        search = QuerySearch(query, pipeline, arrays, network, settings)
        best = best_effort_plan(search) if search.space.columns.pools else None
        if best is not None:  # the advice on the plan includes the hint
            return replace(frontier, best_effort=best, measured_items=search.measured_items)
    return replace(frontier, reason=f"{reason}; profile longer (`circinus profile`)")


def select_representatives(plans: PlanArrays, columns: ResourceColumns, source: str, max_plans: int) -> IntArray:
    """Return at most `max_plans` representative plans, so that the matching has a choice if resources are scarce.

    The selection is, in this order: the minimum of each column (dedicated and shared cost, each pool and link), the
    cheapest plan of each placement and of each configuration (alternating, cheap ones first), then the remaining plans
    by cost. Of plans of equal cost, the first in the order of ties comes first (`by_cost`).

    Returns:
        Indexes, by ascending cost with dedicated replicas.
    """
    order = by_cost(plans, columns, source)
    if plans.count <= max_plans:
        return order
    selected: dict[int, None] = {}
    for column in _extreme_columns(columns):
        selected[int(order[plans.resources[order, column].argmin()])] = None
    by_placement = order[_first_of_each(plans.pools[order])]
    by_configuration = order[_first_of_each(plans.configuration[order, None])]
    for pair in zip_longest(by_placement.tolist(), by_configuration.tolist()):
        selected.update(dict.fromkeys(index for index in pair if index is not None))
    selected.update(dict.fromkeys(order.tolist()))
    return order[np.isin(order, list(selected)[:max_plans])]


def _extreme_columns(columns: ResourceColumns) -> list[int]:
    extremes = [columns.dedicated_cost, columns.shared_cost]
    for pool in range(len(columns.pools)):
        extremes += range(*columns.shared(pool).indices(columns.count))
        extremes += range(*columns.dedicated(pool).indices(columns.count))
    return extremes + [columns.link(link) for link in range(len(columns.links))]


def _first_of_each(keys: IntArray) -> IntArray:
    """Return the ascending indexes of the first occurrence of each distinct row of `keys`."""
    return np.sort(np.unique(keys, axis=0, return_index=True)[1])


def plan_query(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    network: Network,
    settings: SearchSettings = DEFAULT_SETTINGS,
    compiled: CompiledProfiles | None = None,
    estimators: QueryEstimators | None = None,
) -> Frontier:
    """Return the frontier of `query`.

    Args:
        query: query to plan.
        pipeline: its pipeline.
        profile: of the pipeline.
        network: of the infrastructure.
        settings: settings of the search.
        compiled: cache of compiled profiles of the same measurements, which is extended.
        estimators: of the query, to share, if any.

    Raises:
        PlanningError: the profile is of another pipeline, or its bounds are weaker than the query's risk requires.
    """
    compiled = {} if compiled is None else compiled
    return _plan_query(query, pipeline, profile, network, settings, compiled, estimators)


def sized_plans(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    network: Network,
    settings: SearchSettings,
    compiled: CompiledProfiles,
    estimators: QueryEstimators,
) -> tuple[PlanCandidate, ...]:
    """Return candidates for meeting the SLOs at the final sizes beside `settings.running`, estimated in isolation.

    No other such plan adds less to every resource; the plans may miss the latency SLO at their utilization targets.
    Admission decides on them: the search neglects that several values of a request share a link, and that a query's
    share of the cost differs from what its plan adds. The other arguments are those of `plan_query`.

    Args:
        estimators: of the query.
    """
    arrays = _compiled_arrays(query, pipeline, profile, settings, compiled)
    if arrays is None or not network.pools_for(query.source):
        return ()
    search = QuerySearch(query, pipeline, arrays, network, settings, is_near=True, estimators=estimators)
    plans = search.cheapest()
    selection = select_representatives(plans, search.space.columns, query.source, settings.max_plans)
    candidates = (search.candidate(plans, index) for index in selection.tolist())
    return tuple(c for c in candidates if set(c.estimate.violations(query.slos)) <= {SloKind.LATENCY})


CompiledProfiles = dict[tuple[str, PercentileEstimator, object, type[np.floating]], ProfileArrays]
"""(pipeline, percentile, pinned knobs, precision) -> compiled profile."""


def _plan_query(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    network: Network,
    settings: SearchSettings,
    compiled: CompiledProfiles,
    estimators: QueryEstimators | None = None,
) -> Frontier:
    _check(query, profile)
    if not profile.usable:
        return best_effort_frontier(query, pipeline, profile, network, settings)
    arrays = _compiled_arrays(query, pipeline, profile, settings, compiled)
    if arrays is None:
        return no_profile_matches_pins(query, profile)
    promising = 0 if query.pinned_knobs else profile.promising
    return _plan(query, pipeline, arrays, network, settings, promising, estimators)


def _compiled_arrays(
    query: Query,
    pipeline: Pipeline,
    profile: PipelineProfile,
    settings: SearchSettings,
    compiled: CompiledProfiles,
) -> ProfileArrays | None:
    """Return the cached profile within a query's pins, or None if no configuration with enough items matches them."""
    key = profile.pipeline, latency_percentile(query), query.pinned_knobs, settings.dtype
    if key not in compiled:
        matching_pins = pinned_profile(query, profile)
        if not matching_pins.usable:
            return None
        compiled[key] = compile_profile(pipeline, matching_pins, latency_percentile(query), settings.dtype)
    return compiled[key]


def plan_queries(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    settings: SearchSettings = DEFAULT_SETTINGS,
    compiled: CompiledProfiles | None = None,
) -> Mapping[str, Frontier]:
    """Return the frontier of every query of `specification`, by query name, in the order of the specification.

    Queries that differ in name, weight, priority and tenant only share one search.

    A query on a pipeline without enough measurements for any guarantee has no candidate.

    Args:
        specification: with an infrastructure.
        profiles: pipeline name -> profile.
        settings: settings of the search.
        compiled: see `plan_query`.

    Raises:
        PlanningError: there is no infrastructure, a query's pipeline has no profile, or `plan_query` raises.
    """
    network = Network(specification.required_infrastructure)
    compiled = {} if compiled is None else compiled
    frontiers, of_kind = {}, dict[Query, Frontier]()
    for query in specification.queries:
        profile = profiles.get(query.pipeline)
        if profile is None:
            raise PlanningError(
                f"pipeline {query.pipeline} has no profile",
                code="profile.missing",
                location=f"query {query.name}",
                hint="Run `circinus profile`.",
            )
        pipeline = specification.pipelines[query.pipeline]
        kind = query_kind(query)
        if kind not in of_kind:
            of_kind[kind] = _plan_query(query, pipeline, profile, network, settings, compiled)
        frontiers[query.name] = of_kind[kind].for_query(query)
    return frontiers


def _check(query: Query, profile: PipelineProfile) -> None:
    if query.pipeline != profile.pipeline:
        raise PlanningError(
            f"the profile is of pipeline {profile.pipeline} instead of {query.pipeline}",
            code="profile.other_pipeline",
            location=f"query {query.name}",
            hint="Use a profile of the query's pipeline.",
        )
    if query.slos.accuracy is not None and query.risk < profile.risk:
        raise PlanningError(
            f"accuracy bounds of the profile fail with probability {profile.risk:g}, "
            f"which exceeds the query's risk of {query.risk:g}",
            code="profile.risk_too_high",
            location=f"query {query.name}",
            hint="Profile the pipeline again for this risk, or raise the query's risk.",
        )


def _plan(
    query: Query,
    pipeline: Pipeline,
    arrays: ProfileArrays,
    network: Network,
    settings: SearchSettings,
    promising: int,
    estimators: QueryEstimators | None,
) -> Frontier:
    search = QuerySearch(query, pipeline, arrays, network, settings, is_near=True, estimators=estimators)
    considered = search.considered
    if not search.space.columns.pools:
        reason, binding = explain_infeasible(search, network, (), promising)
        return Frontier(query, (), considered, (), (), reason, binding=binding)
    without_cost = search.cheapest()
    plans = _affordable(search, without_cost)
    considered["plans above the cost SLO"] = without_cost.count - plans.count
    considered["plans"] = plans.count
    selection = select_representatives(plans, search.space.columns, query.source, settings.max_plans)
    selected = plans.take(selection)
    considered["plans excluded from the frontier"] = plans.count - selected.count
    # The estimator decides on plans within a rounding error of an SLO.
    guaranteed = search.guaranteed(selected)
    with_margin = search.guaranteed(search.with_margin(selected)) if guaranteed else ()
    if not guaranteed or not search.has_near_misses:
        search = QuerySearch(query, pipeline, arrays, network, settings, estimators=search.estimators)
    explain = settings.near_misses > 0
    relaxations = () if guaranteed else single_relaxations(search, without_cost)
    isolated_limits = describe_isolated_limits(query, network, relaxations) if explain else ""
    reason, binding = ("", ()) if guaranteed else explain_infeasible(search, network, relaxations, promising)
    return Frontier(
        query=query,
        candidates=guaranteed,
        considered={reason: count for reason, count in considered.items() if count},
        near_misses=near_misses(search, without_cost),
        relaxations=relaxations,
        reason="" if guaranteed else reason + isolated_limits,
        isolated_limits=isolated_limits,
        high_margin=with_margin,
        best_effort=best_effort_plan(search) if explain and not guaranteed else None,
        binding=binding,
        unlisted=ColumnPool.of(search.space, plans, selection) if plans.count > len(guaranteed) else None,
        estimators=search.estimators,
        measured_items=search.measured_items if explain and not guaranteed else {},
    )


def _affordable(search: QuerySearch, without_cost: PlanArrays) -> PlanArrays:
    slo = search.query.slos.cost
    if slo is None:
        return without_cost
    shared_usd_per_h = without_cost.resources[:, search.space.columns.shared_cost]
    return without_cost.take(shared_usd_per_h <= slo.limit_usd_per_h + slo.tolerance)
