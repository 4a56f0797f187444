"""Planners of single queries that keep several plans of each: a query whose best does not fit takes its next one.

Queries are admitted one after another while their whole replicas fit on nodes and their traffic on links (`first_come`
has one plan of each). In the end all plans are estimated with the replicas and the load of all; a query whose plan
misses a limit of which the planner has a model takes its next plan, or none.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from benchmarks.baselines.admission import FreeCapacity
from benchmarks.baselines.by_hand import as_matching
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.estimation import Estimator, PlanCandidate
from circinus.matching import Matching, Rejection
from circinus.profiling import PipelineProfile
from circinus.specification import Configuration, SloKind

Choices = Mapping[str, Sequence[PlanCandidate]]
"""Query -> its plans in the order in which they are tried; queries in the order of their admission."""
Prepare = Callable[[Contest, Market, int], tuple[Mapping[str, PipelineProfile], Choices]]
"""(contest, its market, seed) -> the profiles that were bought, and the plans."""
_ROUNDS = 6
"""Rounds in which queries take their next plans; from then on they are rejected."""
_AT_ONCE = 0.34
"""Share of the plans that miss a limit, the worst first, which are replaced in a round."""


@dataclass(frozen=True)
class NextBest:
    """A planner of single queries."""

    name: str
    prepare: Prepare
    tiers: tuple[str, ...] | None = None
    modelled: frozenset[SloKind] = frozenset(SloKind)
    """The objectives that it has a model of."""
    greedy: bool = False
    """Whether a query takes the plan that adds the least cost to the replicas that run, instead of its first."""

    @property
    def description(self) -> str:
        """See `Planner`; the text of the module."""
        return sys.modules[self.prepare.__module__].__doc__ or ""

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`."""
        market = Market(contest, shares_prefixes=True)
        begin_s = time.perf_counter()
        profiles, choices = self.prepare(contest, market, seed)
        first_plan_s = time.perf_counter() - begin_s
        matching = admitted(contest, profiles, choices, self.modelled, self.greedy)
        return market.planned(matching, first_plan_s, time.perf_counter() - begin_s)


def admitted(
    contest: Contest,
    profiles: Mapping[str, PipelineProfile],
    choices: Choices,
    modelled: frozenset[SloKind],
    greedy: bool,
) -> Matching:
    """Return the matching of all queries that fit."""
    remaining = {name: list(plans) for name, plans in choices.items()}
    slos_of = {query.name: query.slos for query in contest.specification.queries}
    estimators: dict[tuple[str, Configuration], Estimator] = {}
    for number in count():
        matching = _packed(contest, profiles, remaining, estimators, greedy)
        missed = []
        for assignment in matching.assignments:
            name, estimate, slos = assignment.query, assignment.chosen.estimate, slos_of[assignment.query]
            if set(estimate.violations(slos, sized=True)) & modelled:
                missed.append((estimate.excess(slos, sized=True), name, assignment.chosen.plan))
        if not missed:
            return matching
        missed.sort(key=lambda miss: (-miss[0], miss[1]))
        for _, name, plan in missed[: max(1, int(_AT_ONCE * len(missed)))]:
            others = [other for other in remaining[name] if other.plan != plan]
            remaining[name] = others if number < _ROUNDS else []
    raise AssertionError("rounds end when nothing is served")


def _packed(
    contest: Contest,
    profiles: Mapping[str, PipelineProfile],
    choices: Choices,
    estimators: dict[tuple[str, Configuration], Estimator],
    greedy: bool,
) -> Matching:
    specification, capacity = contest.specification, FreeCapacity(contest.specification.required_infrastructure)
    measured = {(name, c.configuration): c for name, profile in profiles.items() for c in profile.configurations}
    queries = {query.name: query for query in specification.queries}
    taken, rejections = [], []
    for name, plans in choices.items():
        query = queries[name]
        by_added_cost = sorted(plans, key=capacity.added_usd_per_h) if greedy else plans
        chosen = next((plan for plan in by_added_cost if capacity.admit(plan)), None)
        if chosen is None:
            reason, binding = ("not enough capacity left", "resources") if plans else ("no plan is left", "objectives")
            rejections.append(Rejection(name, reason, (binding,), None))
            continue
        key = name, chosen.plan.configuration
        if key not in estimators:
            pipeline = specification.pipelines[query.pipeline]
            estimators[key] = Estimator(query, pipeline, measured[query.pipeline, key[1]], contest.network)
        taken.append((query, replace(chosen, query=name), estimators[key]))
    total_weight = sum(query.weight for query in specification.queries)
    return as_matching(taken, rejections, capacity.demands, capacity.nodes, total_weight)
