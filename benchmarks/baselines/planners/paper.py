"""Planner of the Circinus paper (Liu et al., arXiv 2504.16397, 2025), as we understand it.

Plans that share a configuration share its profile, and configurations share the runs of their common prefixes, for all
queries. For each kind of query, Bayesian optimization selects configurations by how well their best plan meets the
SLOs, half of the first ones being the best of earlier queries. A configuration is profiled in increments, stratified by
K-means clusters of the items, until its estimate is clear of the threshold. Then queries and plans are matched in a
bipartite graph. The settings are those of `PaperStyle`, which is this search in the search benchmark.

Our own, where nothing is published: the utility; percentiles of latencies with waits, by the product's formulas; whole
replicas. Matched queries take first, by weight, and then the others, each the plan that adds the least cost to the
replicas that run. The matched plans themselves served a fifth less, as they share fewer replicas.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.baselines.matching.bipartite import query_plan_bipartite
from benchmarks.baselines.planners.next_best import Choices, NextBest
from benchmarks.baselines.planners.query_plans import QueryPlans, kind_of, limit_s, limit_usd_per_h
from benchmarks.baselines.search.gaussian_process import GridProcess, expected_improvement
from benchmarks.baselines.search.item_clusters import clustered_order
from benchmarks.baselines.search.knob_encoding import knob_positions
from benchmarks.baselines.search.paper_style import PaperStyle
from benchmarks.baselines.vulcan_plans import busy_usd_per_h, mean_latency_s
from benchmarks.evaluation.contest import Contest, Market
from circinus.estimation import PlanCandidate
from circinus.matching.lagrangian.relaxation import RelaxedView
from circinus.matching.problem_builder import build_problem
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Query
from circinus.statistics.covariates import one_hot_strata

_SEARCH = PaperStyle()
_PLANS_OF_PLACEMENT = 3
"""Cheapest plans of a query on each placement that enter the graph."""


class _PipelineSearch:
    """Searches for the queries of a pipeline, which share all measurements."""

    def __init__(self, contest: Contest, market: Market, pipeline: str, plans: QueryPlans, seed: int) -> None:
        self._pipeline, self._network = contest.specification.pipelines[pipeline], contest.network
        self._market, self._plans, self._rng = market, plans, np.random.default_rng(seed)
        strata = one_hot_strata(contest.traces[pipeline].strata)
        self._order = clustered_order(strata, _SEARCH.clusters, self._rng)
        self._process = GridProcess(knob_positions(self._pipeline, market.configurations(pipeline)))
        self._good = Counter[int]()
        """Configuration -> number of kinds of queries of which it had the best plan."""
        self.profiles: dict[int, ConfigurationProfile] = {}

    def plans_of(self, query: Query) -> list[PlanCandidate]:
        """Search for a kind of query; return its plans, cheapest first."""
        count = len(self._market.configurations(query.pipeline))
        seen = [k for k, _ in self._good.most_common(_SEARCH.first_configurations // 2)]
        others = self._rng.permutation(np.setdiff1d(np.arange(count), seen))
        seen += others[: _SEARCH.first_configurations - len(seen)].tolist()
        reference = limit_usd_per_h(query.slos)
        for k in seen:
            self._profile(query, k)
        if np.isinf(reference):
            costs = [plan.estimate.cost_usd_per_h.lower for k in seen for plan in self._within(query, k)]
            reference = max(costs, default=1.0)
        values = [self._utility(query, k, reference) for k in seen]
        while len(seen) < min(_SEARCH.most_configurations, count):
            remaining = np.setdiff1d(np.arange(count), seen)
            mean, std = self._process.posterior(np.array(seen), np.array(values))
            improvement = expected_improvement(mean[remaining], std[remaining], max(values))
            if improvement.max() < _SEARCH.least_improvement:
                break
            seen.append(int(remaining[improvement.argmax()]))
            self._profile(query, seen[-1])
            values.append(self._utility(query, seen[-1], reference))
        self._good[seen[int(np.argmax(values))]] += 1
        found = [plan for k in self.profiles if self._is_accurate(query, k) for plan in self._within(query, k)]
        found.sort(key=lambda plan: plan.estimate.cost_usd_per_h.lower)
        on_placement = defaultdict[object, list[PlanCandidate]](list)
        for plan in found:
            on_placement[plan.plan.placement].append(plan)
        near = {id(plan) for plans in on_placement.values() for plan in plans[:_PLANS_OF_PLACEMENT]}
        return [plan for plan in found if id(plan) in near]

    def _profile(self, query: Query, k: int) -> None:
        """Measure in increments until the side of the threshold is clear."""
        while not (k in self.profiles and self._is_clear(query, k)):
            items = (len(self.profiles[k].items) if k in self.profiles else 0) + _SEARCH.increment
            configuration = self._market.configurations(query.pipeline)[k]
            self.profiles[k] = self._market.measure(query.pipeline, configuration, self._order[:items])

    def _is_clear(self, query: Query, k: int) -> bool:
        measured, slo = self.profiles[k], query.slos.accuracy
        if slo is None or len(measured.items) == len(self._order) or not self._within(query, k):
            return True
        share = 1.0 - len(measured.items) / len(self._order)
        error = float(measured.scores.std(ddof=1)) * np.sqrt(share / len(measured.items))
        return bool(abs(slo.margin(measured.accuracy.value)) > _SEARCH.standard_errors * error)

    def _is_accurate(self, query: Query, k: int) -> bool:
        slo = query.slos.accuracy
        return self._is_clear(query, k) and (slo is None or slo.is_met_by(self.profiles[k].accuracy.value))

    def _within(self, query: Query, k: int) -> tuple[PlanCandidate, ...]:
        return self._plans.within_limits(query, self.profiles[k])

    def _utility(self, query: Query, k: int, reference: float) -> float:
        """Return 2 less the cost of the cheapest plan over the reference if it meets all SLOs, else - violations."""
        measured, slos = self.profiles[k], query.slos
        short = 0.0 if slos.accuracy is None else max(-slos.accuracy.margin(measured.accuracy.value), 0.0)
        if within := self._within(query, k):
            return 2.0 - min(within[0].estimate.cost_usd_per_h.lower / reference, 1.0) if not short else -short
        violations = [2.0]
        for placement in self._plans.placements(query, measured):
            arguments = query, self._pipeline, measured, placement, self._network
            late = max(mean_latency_s(*arguments) / limit_s(slos) - 1.0, 0.0)
            dear = max(busy_usd_per_h(*arguments) / limit_usd_per_h(slos) - 1.0, 0.0)
            violations.append(min(late, 1.0) + min(dear, 1.0))
        return -(min(violations) + short)


def _prepare(contest: Contest, market: Market, seed: int) -> tuple[Mapping[str, PipelineProfile], Choices]:
    plans = QueryPlans(contest)
    searches = {name: _PipelineSearch(contest, market, name, plans, seed) for name in contest.specification.pipelines}
    kinds = {query.name: kind_of(query) for query in contest.specification.queries}
    of_kind = {kind: searches[kind.pipeline].plans_of(kind) for kind in dict.fromkeys(kinds.values())}
    choices = _matched(contest, {name: of_kind[kind] for name, kind in kinds.items()})
    profiles = {name: market.profile(name, list(search.profiles.values())) for name, search in searches.items()}
    return profiles, choices


def _matched(contest: Contest, found: Choices) -> Choices:
    """Return the plans of all queries, matched ones and then others by weight, each with its matched plan first."""
    queries, infrastructure = contest.specification.queries, contest.specification.required_infrastructure
    candidates = {name: [replace(plan, query=name) for plan in plans] for name, plans in found.items()}
    problem = build_problem(queries, candidates, infrastructure)
    if not problem.candidates:
        return found
    view = RelaxedView.of(problem, problem.priority_levels.weight, np.ones(len(problem.candidates), dtype=bool))
    chosen = view.candidates(query_plan_bipartite(view.scaled(np.ones(len(problem.deployments))))).tolist()
    ordered = sorted(range(len(queries)), key=lambda q: (chosen[q] < 0, -queries[q].weight))
    first = {q: problem.candidates[chosen[q]] for q in ordered if chosen[q] >= 0}
    return {queries[q].name: [*([first[q]] if q in first else []), *candidates[queries[q].name]] for q in ordered}


PAPER = NextBest("paper-style", _prepare, greedy=True)
