"""Optuna for each kind of query, then greedily by weight over cost: what a good engineer has with a general optimizer.

Akiba et al., "Optuna" (KDD 2019), with its tree-structured Parzen estimator and constraints (Watanabe & Hutter,
"c-TPE", IJCAI 2023), as in the search benchmark. A trial measures a configuration on all items, once for all queries
of a pipeline, and computes its cheapest plan: placements need no trials, which spares it most of them. The objective is
the cost, the constraints are the three limits. Of the plans of all its trials, a query takes the one that adds the
least cost to the replicas that run. First come, first served reached half as much at twice the load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.baselines.planners.next_best import Choices, NextBest
from benchmarks.baselines.planners.query_plans import (
    QueryPlans,
    is_accurate,
    kind_of,
    limit_s,
    limit_usd_per_h,
)
from benchmarks.baselines.search.optuna_constrained import suggested
from benchmarks.baselines.vulcan_plans import busy_usd_per_h, mean_latency_s
from benchmarks.evaluation.contest import Contest, Market
from circinus.estimation import PlanCandidate
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Configuration, Query

_TRIALS = 40
_WORST = 1e6


def _prepare(contest: Contest, market: Market, seed: int) -> tuple[Mapping[str, PipelineProfile], Choices]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plans = QueryPlans(contest)
    bought: dict[str, dict[Configuration, ConfigurationProfile]] = {
        name: {} for name in contest.specification.pipelines
    }

    def searched(query: Query, number: int) -> list[PlanCandidate]:
        pipeline, own = contest.specification.pipelines[query.pipeline], bought[query.pipeline]
        tried = dict[Configuration, ConfigurationProfile]()

        def objective(trial: Any) -> float:
            configuration = suggested(pipeline, trial)
            if configuration not in own:
                own[configuration] = market.measure(
                    pipeline.name, configuration, np.arange(market.items(pipeline.name))
                )
            measured = tried[configuration] = own[configuration]
            value, beyond = _evaluated(contest, plans, query, measured)
            for limit, excess in beyond.items():
                trial.set_constraint(limit, excess)
            return value

        sampler = optuna.samplers.TPESampler(seed=seed + number)
        optuna.create_study(sampler=sampler).optimize(objective, n_trials=_TRIALS)
        accurate = [plan for c in tried.values() if is_accurate(query, c) for plan in plans.within_limits(query, c)]
        return sorted(accurate, key=lambda plan: plan.estimate.cost_usd_per_h.lower)

    of_kind = dict[Query, list[PlanCandidate]]()
    choices = {}
    for query in contest.specification.queries:
        kind = kind_of(query)
        if kind not in of_kind:
            of_kind[kind] = searched(kind, len(of_kind))
        choices[query.name] = of_kind[kind]
    cheapest = {name: own[0].estimate.cost_usd_per_h.lower if own else np.inf for name, own in choices.items()}
    weight = {query.name: query.weight for query in contest.specification.queries}
    ordered = sorted(choices, key=lambda name: cheapest[name] / weight[name])
    profiles = {name: market.profile(name, list(own.values())) for name, own in bought.items()}
    return profiles, {name: choices[name] for name in ordered}


def _evaluated(
    contest: Contest, plans: QueryPlans, query: Query, measured: ConfigurationProfile
) -> tuple[float, dict[str, float]]:
    """Return the cost of the cheapest plan, and the excess over each limit, at most 0 if it is met."""
    accuracy, within = query.slos.accuracy, plans.within_limits(query, measured)
    short = 0.0 if accuracy is None else -accuracy.margin(measured.accuracy.value)
    if within:
        cost = within[0].estimate.cost_usd_per_h.lower
        return cost, {"accuracy": short, "latency": 0.0, "cost": 0.0}
    pipeline = contest.specification.pipelines[query.pipeline]
    fastest = min(
        (
            (mean_latency_s(*arguments, contest.network), busy_usd_per_h(*arguments, contest.network))
            for placement in plans.placements(query, measured)
            for arguments in [(query, pipeline, measured, placement)]
        ),
        default=(_WORST, _WORST),
    )
    late = max(fastest[0] / limit_s(query.slos) - 1.0, 1e-3)  # waits count in `within`, but not here
    return fastest[1], {"accuracy": short, "latency": late, "cost": fastest[1] - limit_usd_per_h(query.slos)}


OPTUNA_GREEDY = NextBest("Optuna + greedy", _prepare, greedy=True)
