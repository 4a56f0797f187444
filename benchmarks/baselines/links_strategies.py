"""What is compared: plans made together, and what else people and planners do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.baselines.by_hand import BEST_IN_THE_CLOUD, CHEAPEST_ON_THE_DEVICE
from benchmarks.baselines.first_come_plans import first_come, fixed, vulcan_style
from benchmarks.workloads.links import Tempo, specification, without_links
from circinus.estimation import merge_loads
from circinus.matching import Matching, plan_all_queries
from circinus.matching.plan_estimates import PlanEstimates
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Specification

OURS, CLOUD, DEVICE, VULCAN = "Circinus", "best in the cloud", "cheapest on the device", "Vulcan-style"
ALTERNATIVES = CLOUD, DEVICE, VULCAN
_STEPS = 6
_UNEXPLAINED = SearchSettings(near_misses=0, max_margin_plans=0)
_LEAST_FACTOR, _MOST_FACTOR = 0.04, 1.0

Profiles = Mapping[str, PipelineProfile]


def ours(asked: Specification, profiles: Profiles) -> Matching:
    """All queries planned together."""
    return plan_all_queries(asked, profiles)[0]


def planned(asked: Specification, profiles: Profiles, strategy: str) -> Matching:
    """What a strategy would deploy."""
    if strategy == OURS:
        return ours(asked, profiles)
    plan_of = {
        CLOUD: lambda: fixed(asked, profiles, BEST_IN_THE_CLOUD),
        DEVICE: lambda: fixed(asked, profiles, CHEAPEST_ON_THE_DEVICE),
        VULCAN: lambda: vulcan_style(asked, profiles),
    }[strategy]()
    return first_come(asked, profiles, plan_of)


def saturation(profiles: Profiles, queries: int | None, tempo: Tempo) -> float:
    """Times the examples' rates up to which all queries can be served that can be served at all, planned together.

    By bisection to a few per cent. It is where load 1 is: beyond it something has to be refused by any plan that is not
    better than ours.

    Args:
        profiles: of both pipelines.
        queries: how many there are; None: all.
        tempo: of what is specified.
    """

    def served(factor: float) -> float:
        asked = specification(factor, count=queries, tempo=tempo)
        return plan_all_queries(asked, profiles, search=_UNEXPLAINED)[0].satisfied_weight

    least, most = _LEAST_FACTOR / tempo.slower, _MOST_FACTOR / tempo.slower
    all_there_is = served(least)
    for _ in range(_STEPS):
        middle = (least * most) ** 0.5
        if served(middle) >= all_there_is:
            least = middle
        else:
            most = middle
    return least


def as_if_without_links(asked: Specification, profiles: Profiles, matching: Matching) -> Mapping[str, float]:
    """Query -> seconds that its plan would be promised by who ignores links."""
    free = without_links(asked)
    plans = PlanEstimates(free, profiles, DEFAULT_SETTINGS.usable_link_share)
    alone = [plans.estimate_of(assignment.query, assignment.chosen.plan) for assignment in matching.assignments]
    conditions = merge_loads(alone, {sized.deployment: sized.replicas for sized in matching.deployments})
    return {one.query: plans.reestimate(one, conditions).estimate.latency_s.value for one in alone}


def only(asked: Specification, names: set[str]) -> Specification:
    """The same with some of the queries."""
    return replace(asked, queries=tuple(query for query in asked.queries if query.name in names))


def with_rates(asked: Specification, times: float) -> Specification:
    """The same at so many times the rates."""
    queries = (query.model_copy(update={"rate_per_s": times * query.rate_per_s}) for query in asked.queries)
    return replace(asked, queries=tuple(queries))
