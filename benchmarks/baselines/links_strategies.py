"""Strategies of the comparison over links: joint planning, and alternatives."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE
from benchmarks.baselines.first_come_plans import first_come, fixed, vulcan_style
from benchmarks.workloads.links import Tempo, specification, without_links
from circinus.estimation import merge_loads
from circinus.matching import Matching, plan_all_queries
from circinus.matching.plan_estimates import PlanEstimates
from circinus.planning.settings import SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Specification

OURS, CLOUD, DEVICE, VULCAN = "Circinus", "best in the cloud", "cheapest on the device", "Vulcan-style"
ALTERNATIVES = CLOUD, DEVICE, VULCAN
_STEPS = 7
_UNEXPLAINED = SearchSettings(near_misses=0, max_margin_plans=0)
_MIN_PER_S, _MAX_PER_S = 0.2, 10.0

Profiles = Mapping[str, PipelineProfile]


def ours(workload: Specification, profiles: Profiles) -> Matching:
    """Plan all queries jointly."""
    return plan_all_queries(workload, profiles)[0]


def planned(workload: Specification, profiles: Profiles, strategy: str) -> Matching:
    """Return the matching of a strategy."""
    if strategy == OURS:
        return ours(workload, profiles)
    plan_of = {
        CLOUD: lambda: fixed(workload, profiles, BEST_IN_THE_CLOUD),
        DEVICE: lambda: fixed(workload, profiles, CHEAPEST_ON_THE_DEVICE),
        VULCAN: lambda: vulcan_style(workload, profiles),
    }[strategy]()
    return first_come(workload, profiles, plan_of)


def saturation(profiles: Profiles, queries: int | None, tempo: Tempo) -> float:
    """Return the highest rate of each query at which joint planning serves all servable queries, in requests a second.

    Computed by bisection to a few per cent. This is load 1: beyond it any plan that is not better must reject queries.

    Args:
        profiles: profiles of both pipelines.
        queries: number of queries; None: all.
        tempo: time scale.
    """

    def served(rate_per_s: float) -> float:
        workload = specification(rate_per_s, count=queries, tempo=tempo)
        return plan_all_queries(workload, profiles, search=_UNEXPLAINED)[0].satisfied_weight

    lower, upper = _MIN_PER_S / tempo.slower, _MAX_PER_S / tempo.slower
    servable_weight = served(lower)
    for _ in range(_STEPS):
        midpoint = (lower * upper) ** 0.5
        if served(midpoint) >= servable_weight:
            lower = midpoint
        else:
            upper = midpoint
    return lower


def as_if_without_links(workload: Specification, profiles: Profiles, matching: Matching) -> Mapping[str, float]:
    """Return the latency in seconds that a planner without links would predict for each query's plan."""
    free = without_links(workload)
    plans = PlanEstimates(free, profiles)
    isolated = [plans.estimate_of(assignment.query, assignment.chosen.plan) for assignment in matching.assignments]
    conditions = merge_loads(isolated, {sized.deployment: sized.replicas for sized in matching.deployments})
    return {candidate.query: plans.reestimate(candidate, conditions).estimate.latency_s.value for candidate in isolated}
