"""Machines beyond the allowed ones that serve more: the amount that one plan lacks is no measure of them.

A query at 20,000/s lacked 235 CPUs of its nearest plan's small pool, and one more node of 8 CPUs elsewhere served it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from circinus.matching.candidate_machines import larger_machines
from circinus.matching.machine_sizing import MachineSizing, Progress, size_machines
from circinus.matching.settings import DEFAULT_MATCH_SETTINGS, MatchSettings
from circinus.matching.tolerances import WEIGHT_TOLERANCE
from circinus.planning import plan_queries
from circinus.profiling import PipelineProfile

_FACTOR = 100
"""Nodes that are looked at of each pool, as a multiple of those allowed."""


def sufficient_machines(
    sizing: MachineSizing,
    profiles: Mapping[str, PipelineProfile],
    *,
    settings: MatchSettings = DEFAULT_MATCH_SETTINGS,
    progress: Progress = lambda step: None,
) -> MachineSizing | None:
    """Return the cheapest machines that serve the most weight; None if allowed ones were not found to serve less.

    Args:
        sizing: of the allowed machines.
        profiles: pipeline name -> profile.
        settings: settings of each matching.
        progress: called with each step.

    Raises:
        PlanningError: see `plan_all_queries`.
    """
    specification, rejected = sizing.specification, {rejection.query for rejection in sizing.matching.rejections}
    larger = replace(specification, infrastructure=larger_machines(specification.required_infrastructure, _FACTOR))
    queries = tuple(query for query in specification.queries if query.name in rejected)
    frontiers = plan_queries(replace(larger, queries=queries), profiles) if queries else {}
    if not any(frontier.candidates for frontier in frontiers.values()):
        return None
    progress("larger machines")
    found = size_machines(larger, profiles, settings=settings, explains=False)
    is_more = found.matching.satisfied_weight > sizing.matching.satisfied_weight * (1.0 + WEIGHT_TOLERANCE)
    return found if is_more and added_nodes(sizing, found) else None


def added_nodes(sizing: MachineSizing, sufficient: MachineSizing) -> Mapping[str, int]:
    """Return pool -> nodes of the sufficient machines, of pools that have more of them than are allowed."""
    allowed = {pool.name: pool.nodes for pool in sizing.specification.required_infrastructure.pools}
    return {pool: nodes for pool, nodes in sufficient.matching.nodes.items() if nodes > allowed[pool]}
