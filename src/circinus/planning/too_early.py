"""A query on a pipeline of which too little was measured to promise anything."""

from __future__ import annotations

import numpy as np

from circinus.estimation.estimator import latency_percentile
from circinus.planning.best_so_far import best_effort_plan
from circinus.planning.frontier import BestEffortPlan, Frontier
from circinus.planning.profile_arrays import compile_configurations
from circinus.planning.query_search import QuerySearch
from circinus.planning.settings import SearchSettings
from circinus.profiling import MIN_ITEMS, PipelineProfile
from circinus.spec import Network, Pipeline, Query

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
