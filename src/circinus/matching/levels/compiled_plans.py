"""Compiled plans of queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from circinus.errors import PlanningError
from circinus.estimation.compiled_plan import CompiledPlan
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_space import PlanSpace
from circinus.specification import Network, Specification


def compiled_plans(specification: Specification, estimates: PlanEstimates) -> Mapping[str, Sequence[CompiledPlan]]:
    """Return the plans of all queries that meet their accuracy SLOs, at the highest utilization as their targets.

    Queries of a kind share them. Plans that are too much for a link alone are left out.
    """
    infrastructure = specification.required_infrastructure
    network, of_kind = Network(infrastructure), dict[str, list[CompiledPlan]]()
    for query in specification.queries:
        kind = estimates.kind_of(query.name)
        if kind not in of_kind:
            pipeline, accurate = specification.pipelines[query.pipeline], estimates.accurate_configurations(query)
            own = of_kind[kind] = []
            for plan in PlanSpace.of(query, pipeline, network, accurate, [infrastructure.utilization_limit]).plans():
                with suppress(PlanningError):
                    own.append(estimates.compiled_plan(query.name, plan))
    return {
        query.name: [
            compiled
            for compiled in of_kind[estimates.kind_of(query.name)]
            if not estimates.is_excluded(query.name, compiled.plan)
        ]
        for query in specification.queries
    }
