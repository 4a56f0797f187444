"""Plans that a planner without a queueing model can see to hold: means of times, accuracies and costs.

A request waits for one batch before its own at each operator. On a contest of 62 queries, plans whose mean times alone
meet the objective break most of the promises of planners that ignore waits: 24 of 44 and 32 of 52.

All operators of a plan are in one pool, as in planners for a single cluster. A kind is what equal queries share but for
names and weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.baselines.admission import Admission
from benchmarks.baselines.vulcan_plans import mean_latency_s, plan_on, useful_sizes
from benchmarks.evaluation.contest import Market, Planned
from circinus.estimation import PlanCandidate
from circinus.profiling import ConfigurationProfile
from circinus.specification import Network, Pipeline, Pool, Query, QueryPlan

BATCHES = 2.0
"""Times of each operator in a visible latency: a request waits for one batch before its own (see `proteus`)."""
_ROUNDS = 4

Banned = Collection[tuple[str, QueryPlan | None]]
"""(query, a plan that it must not have); None: it must have none."""


@dataclass(frozen=True)
class VisiblePlan:
    """Plan of a query with all operators in one pool."""

    configuration: ConfigurationProfile
    pool: Pool
    candidate: PlanCandidate

    @property
    def usd_per_h(self) -> float:
        """Visible cost."""
        return visible_usd_per_h(self.candidate)


def visible_usd_per_h(candidate: PlanCandidate) -> float:
    """Return the price of replicas at their utilization target, and of transfers."""
    uses, transfers = candidate.deployments, candidate.transfer_cost_usd_per_h
    return transfers + sum(use.fractional_replicas * use.demand.cost_usd_per_h for use in uses)


def planned_below_cost(market: Market, begin_s: float, admitted: Callable[[Banned], Admission]) -> Planned:
    """Return the plans of the round that serves most without queries that are too dear in the end.

    Args:
        market: what was bought.
        begin_s: moment at which planning began.
        admitted: admits queries with other plans than those banned, which were too dear in earlier rounds; in the last
            round, queries that were too dear get none.
    """
    banned, first_plan_s = set[tuple[str, QueryPlan | None]](), 0.0
    best: Admission | None = None
    for following in range(_ROUNDS)[::-1]:
        admission = admitted(banned)
        first_plan_s = first_plan_s or time.perf_counter() - begin_s
        dear, affordable = admission.too_dear, admission.without_dear()
        best = affordable if best is None or affordable.weight > best.weight else best
        if not dear:
            break
        banned |= {(query, candidate.plan if following > 1 else None) for query, candidate in dear.items()}
    assert best is not None, "there is at least one round"
    return market.planned(best.matching(), first_plan_s, time.perf_counter() - begin_s)


def is_banned(banned: Banned, query: Query, plan: QueryPlan) -> bool:
    """Return whether a query must not have a plan."""
    return (query.name, plan) in banned or (query.name, None) in banned


def is_affordable(query: Query, usd_per_h: float) -> bool:
    """Return whether a cost meets the query's objective."""
    return query.slos.cost is None or query.slos.cost.is_met_by(usd_per_h)


def is_in_time(query: Query, latency_s: float) -> bool:
    """Return whether a latency meets the query's objective."""
    return query.slos.latency is None or query.slos.latency.is_met_by(latency_s)


def pools_of(pipeline: Pipeline, query: Query, network: Network) -> list[Pool]:
    """Return the pools that may run all operators of a pipeline."""
    return [
        pool
        for pool in network.pools_for(query.source)
        if all(operator.allowed_tiers is None or pool.tier in operator.allowed_tiers for operator in pipeline.operators)
    ]


def visible_plans(
    query: Query,
    pipeline: Pipeline,
    configurations: Sequence[ConfigurationProfile],
    network: Network,
    admission: Admission,
    *,
    max_batch_size: int = 1,
) -> Iterator[VisiblePlan]:
    """Yield the plans, with all `useful_sizes`, that fit on a node and visibly meet the latency objective.

    Args:
        query: of the specification.
        pipeline: pipeline of the query.
        configurations: measured ones.
        network: pools and links.
        admission: estimates the loads of plans.
        max_batch_size: maximum size of batches.
    """
    for pool in pools_of(pipeline, query, network):
        placement = {operator.name: pool for operator in pipeline.operators}
        for measured in configurations:
            if any(operator.peak_memory_bytes > pool.memory_bytes for operator in measured.operators.values()):
                continue
            for sizes in useful_sizes(pipeline, measured, placement):
                latency_s = mean_latency_s(
                    query,
                    pipeline,
                    measured,
                    placement,
                    network,
                    sizes=sizes,
                    max_batch_size=max_batch_size,
                    batches=BATCHES,
                )
                if not is_in_time(query, latency_s):
                    continue
                plan = plan_on(pipeline, measured, placement, max_batch_size, sizes=sizes)
                candidate = admission.estimate(query, plan)
                if candidate is not None:
                    yield VisiblePlan(measured, pool, candidate)
