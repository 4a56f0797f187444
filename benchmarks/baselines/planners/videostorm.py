"""VideoStorm-style: knobs profiled by hill climbing, and utilities raised step by step while resources last.

After Zhang et al., "Live Video Analytics at Scale with Approximation and Delay-Tolerance" (NSDI 2017). By our
understanding, the profiler climbs from random configurations to neighbours, which differ in one knob, by quality minus
beta times demand, shares the work of common prefixes, and keeps what no other measured configuration beats. The
scheduler gives resources step by step to the query whose utility rises most per resource, and each query the
configuration that is best with its share.

Simplified: utility is the weight where quality and lag meet their goals, as the judge counts nothing beyond. Queries
that run the same operator share its replicas, so that a step adds the replicas that are missing for a query. There are
profiles of pipelines, not of each query, on all items. All transforms of a query run in one pool, and its lag is that
of mean times with one request before it at each transform. Replicas may have more CPUs, as resources of the query.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.baselines.admission import Admission
from benchmarks.baselines.planners.query_plans import is_accurate, kind_of
from benchmarks.baselines.planners.visible_plans import (
    Banned,
    VisiblePlan,
    is_affordable,
    is_banned,
    planned_below_cost,
    visible_plans,
)
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.matching.plan_estimates import PlanEstimates
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, Pipeline, Query

_BETAS = 0.0, 0.1, 0.3, 1.0
_STARTS = 2
"""Random starts for each beta."""
_OF_SHARE = 0.1
"""Weight of the resources that a query keeps busy beside those that it adds, in the resources of a step."""


_DESCRIPTION = __doc__  # in a class, `__doc__` is its own


@dataclass(frozen=True)
class VideoStorm:
    """Greedy profiling, then hill climbing over allocations."""

    name: str = "VideoStorm-style"
    tiers: tuple[str, ...] | None = ("cloud",)
    description: str = _DESCRIPTION

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`."""
        market, rng = Market(contest, shares_prefixes=True), np.random.default_rng(seed)
        begin_s = time.perf_counter()
        profiles = {name: _profiled(market, p, rng) for name, p in contest.specification.pipelines.items()}
        estimates = PlanEstimates(contest.specification, profiles)
        options = _options(contest, profiles, Admission(contest.specification, estimates))

        def climbed(banned: Banned) -> Admission:
            admission = Admission(contest.specification, estimates)
            _climb(contest.specification.queries, options, admission, banned)
            return admission

        return planned_below_cost(market, begin_s, climbed)


def _profiled(market: Market, pipeline: Pipeline, rng: np.random.Generator) -> PipelineProfile:
    """Return the configurations on the frontier of quality and demand among all that the climbs touched."""
    configurations = list(market.configurations(pipeline.name))
    sign = 1.0 if pipeline.metric.direction == "maximize" else -1.0
    everything, measured = np.arange(market.items(pipeline.name)), dict[Configuration, ConfigurationProfile]()

    def profile(configuration: Configuration) -> ConfigurationProfile:
        if configuration not in measured:
            measured[configuration] = market.measure(pipeline.name, configuration, everything)
        return measured[configuration]

    for beta in np.repeat(_BETAS, _STARTS).tolist():
        current = configurations[int(rng.integers(len(configurations)))]
        unit_s = profile(current).mean_service_s

        def value(configuration: Configuration, beta: float = beta, unit_s: float = unit_s) -> float:
            own = profile(configuration)
            return sign * own.accuracy.value - beta * own.mean_service_s / unit_s

        while True:
            neighbours = [other for other in configurations if _changed_knobs(current, other) == 1]
            better = (neighbours[n] for n in rng.permutation(len(neighbours)))
            following = next((other for other in better if value(other) > value(current)), None)
            if following is None:
                break
            current = following
    frontier = [
        own
        for own in measured.values()
        if not any(
            sign * other.accuracy.value >= sign * own.accuracy.value and other.mean_service_s < own.mean_service_s
            for other in measured.values()
        )
    ]
    return market.profile(pipeline.name, frontier)


def _changed_knobs(one: Configuration, other: Configuration) -> int:
    return sum(len({knob for knob, _ in set(one[name].values) ^ set(other[name].values)}) for name in one)


def _options(
    contest: Contest, profiles: Mapping[str, PipelineProfile], admission: Admission
) -> Mapping[Query, Sequence[VisiblePlan]]:
    """Return the plans of each kind that meet its goals."""
    options = dict[Query, Sequence[VisiblePlan]]()
    for query in contest.specification.queries:
        if kind_of(query) not in options:
            accurate = [c for c in profiles[query.pipeline].configurations if is_accurate(query, c)]
            pipeline = contest.specification.pipelines[query.pipeline]
            plans = visible_plans(query, pipeline, accurate, contest.network, admission)
            options[kind_of(query)] = [plan for plan in plans if is_affordable(query, plan.usd_per_h)]
    return options


def _climb(
    queries: Sequence[Query], options: Mapping[Query, Sequence[VisiblePlan]], admission: Admission, banned: Banned
) -> None:
    """Admit the query and plan with the highest utility per resource, again and again while any fits."""
    waiting = [sorted((q for q in queries if kind_of(q) == kind), key=lambda query: -query.weight) for kind in options]
    steps = [(number, option) for number, own in enumerate(options.values()) for option in own]
    resources = {step: _resources(option, admission) for step, (_, option) in enumerate(steps)}
    while resources:
        best = max(resources, key=lambda step: waiting[steps[step][0]][0].weight / max(resources[step], 1e-12))
        number, option = steps[best]
        plan = option.candidate.plan
        query = next((query for query in waiting[number] if not is_banned(banned, query, plan)), None)
        candidate = None if query is None else admission.estimate(query, plan)
        if query is None or candidate is None or not admission.admit(query, candidate):
            del resources[best]
            continue
        waiting[number].remove(query)
        used = set(plan.deployments)
        for step in list(resources):
            if not waiting[steps[step][0]]:
                del resources[step]
            elif used.intersection(steps[step][1].candidate.plan.deployments):
                resources[step] = _resources(steps[step][1], admission)


def _resources(option: VisiblePlan, admission: Admission) -> float:
    """Return the share of the pool's CPUs that a query adds."""
    added = sum(
        use.demand.cpus
        * (admission.capacity.missing(use.deployment, use.busy_replicas) + _OF_SHARE * use.fractional_replicas)
        for use in option.candidate.deployments
    )
    return added / (option.pool.cpus * option.pool.nodes)
