"""Proteus-style: accuracy scaling by a mixed-integer programme over model variants on the workers of one tier.

After Ahmad et al., "Proteus: A High-Throughput Inference-Serving System with Accuracy Scaling" (ASPLOS 2024). By our
understanding, the programme says how many workers host each variant and which part of each application's requests each
variant gets, so that the demand is met and the accuracy is highest. Variants are measured beforehand. One may serve a
request if twice the time of its batch meets the latency objective, as a request waits for one batch.

Simplified: a variant is a configuration of the whole pipeline in one pool, but equal operators share workers, which is
to its advantage. A query is served with all its requests or not at all; its accuracy is the mean over its variants, and
what is above its objective counts nothing, so that the weight comes first and then the price of workers. Batches have
one size for all operators instead of sizes that adapt. Workers are utilized up to 70 %. Workers with more CPUs are
further variants.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.baselines.admission import Admission
from benchmarks.baselines.planners.proteus_programme import divided_load
from benchmarks.baselines.planners.query_plans import kind_of
from benchmarks.baselines.planners.visible_plans import (
    Banned,
    VisiblePlan,
    planned_below_cost,
    visible_plans,
)
from benchmarks.evaluation.contest import Contest, Market, Planned
from circinus.estimation import PlanCandidate
from circinus.matching.plan_estimates import PlanEstimates
from circinus.profiling import PipelineProfile
from circinus.specification import Query

_DEARER, _EXCLUDED = 1.3, 1e3
"""Factors of the cost of queries that were too dear in the end: in the next round, and if they must have no plan."""


_DESCRIPTION = __doc__  # in a class, `__doc__` is its own


@dataclass(frozen=True)
class Proteus:
    """Planner of one cluster."""

    name: str = "Proteus-style"
    tiers: tuple[str, ...] | None = ("cloud",)
    description: str = _DESCRIPTION

    def plan(self, contest: Contest, seed: int) -> Planned:
        """See `Planner`. The seed has no effect."""
        market = Market(contest, shares_prefixes=True)
        begin_s = time.perf_counter()
        specification = contest.specification
        profiles = {name: market.complete(name) for name in specification.pipelines}
        estimates = PlanEstimates(specification, profiles)
        admission = Admission(specification, estimates)
        kinds = {kind_of(query): query for query in reversed(specification.queries)}
        options = {kind: self._variants(contest, query, profiles, admission) for kind, query in kinds.items()}
        kind_by_name = {query.name: kind_of(query) for query in specification.queries}

        def solved(banned: Banned) -> Admission:
            plans = {(kind_by_name[query], plan) for query, plan in banned}
            dearer = {kind: _DEARER ** sum(other == kind for other, _ in plans) for kind in options}
            dearer |= {kind: _EXCLUDED for kind, plan in plans if plan is None}
            admission, candidates = Admission(specification, estimates), list[tuple[Query, PlanCandidate]]()
            for query, plan in divided_load(specification, options, dearer).items():
                candidate = admission.estimate(query, plan)
                candidates += [] if candidate is None else [(query, candidate)]
            admission.admit_all(candidates)
            return admission

        return planned_below_cost(market, begin_s, solved)

    @staticmethod
    def _variants(
        contest: Contest, query: Query, profiles: Mapping[str, PipelineProfile], admission: Admission
    ) -> Sequence[VisiblePlan]:
        """Return the variants that may serve a query, with batches of every size."""
        pipeline, usable = contest.specification.pipelines[query.pipeline], profiles[query.pipeline].usable
        sizes = sorted({size for operator in pipeline.operators for size in (1, *operator.batch_sizes)})
        plans = (
            plan
            for size in sizes
            for plan in visible_plans(query, pipeline, usable, contest.network, admission, max_batch_size=size)
        )
        return list({plan.candidate.plan: plan for plan in plans}.values())
