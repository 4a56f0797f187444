"""Vulcan-style: Bayesian optimization of each query's utility over all placements.

After Zhang et al., "Vulcan: Automatic query planning for live ML analytics" (NSDI 2024), as `VulcanStyle` does it in
the search benchmark: the utility rewards slack in accuracy and latency over the cost of busy seconds, and latencies are
means without queues. Simplified: a configuration is measured on all items, once for all queries of a pipeline, and one
optimization covers all placements, at the best of which a configuration counts. Both spare it measurements.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from benchmarks.baselines.first_come_plans import PlanOf
from benchmarks.baselines.planners.one_by_one import OneByOne
from benchmarks.baselines.planners.query_plans import kind_of
from benchmarks.baselines.search.gaussian_process import GridProcess, expected_improvement
from benchmarks.baselines.search.knob_encoding import knob_positions
from benchmarks.baselines.vulcan_plans import placements, utility, vulcan_plan
from benchmarks.evaluation.contest import Contest, Market
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.specification import Query, QueryPlan

_FIRST, _PATIENCE, _LEAST_GAIN = 5, 3, 0.1
"""Random configurations at first; configurations in a row that do not improve by the least gain, until it ends."""


def _prepare(contest: Contest, market: Market, seed: int) -> tuple[Mapping[str, PipelineProfile], PlanOf]:
    specification, bought = contest.specification, dict[str, dict[int, ConfigurationProfile]]()
    rng = np.random.default_rng(seed)

    def measured(pipeline: str, number: int) -> ConfigurationProfile:
        own = bought.setdefault(pipeline, {})
        if number not in own:
            configuration = market.configurations(pipeline)[number]
            own[number] = market.measure(pipeline, configuration, np.arange(market.items(pipeline)))
        return own[number]

    def plan_of(query: Query) -> QueryPlan | None:
        pipeline = specification.pipelines[query.pipeline]
        process = GridProcess(knob_positions(pipeline, market.configurations(query.pipeline)))
        places = list(placements(query, pipeline, contest.network))
        values, seen, stale = list[float](), list[int](), 0
        order = rng.permutation(len(market.configurations(query.pipeline))).tolist()
        while order and stale < _PATIENCE:
            if len(seen) < _FIRST:
                chosen = order[0]
            else:
                mean, std = process.posterior(np.array(seen), np.array(values))
                chosen = order[int(expected_improvement(mean[order], std[order], max(values)).argmax())]
            order.remove(chosen)
            configuration = measured(query.pipeline, chosen)
            found = [utility(query, pipeline, configuration, place, contest.network) for place in places]
            value = max((u for u in found if u is not None), default=-1.0)
            best = max(values, default=-np.inf)
            stale = 0 if len(seen) < _FIRST or value >= best + _LEAST_GAIN * abs(best) else stale + 1
            seen.append(chosen)
            values.append(value)
        seen_profile = market.profile(query.pipeline, [bought[query.pipeline][number] for number in seen])
        return vulcan_plan(query, pipeline, seen_profile, contest.network)

    of_kind: dict[Query, QueryPlan | None] = {}
    plans = dict[str, QueryPlan | None]()
    for query in specification.queries:
        kind = kind_of(query)
        if kind not in of_kind:
            of_kind[kind] = plan_of(query)
        plans[query.name] = of_kind[kind]
    profiles = {name: market.profile(name, list(own.values())) for name, own in bought.items()}
    return profiles, lambda query: plans[query.name]


VULCAN = OneByOne("Vulcan-style", _prepare, None)
