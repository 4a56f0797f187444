"""From a matching to what a simulation runs."""

from __future__ import annotations

from collections.abc import Mapping

from circinus.errors import PlanningError
from circinus.matching.plan_set import Matching
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import arrival_process
from circinus.simulation import PlannedQuery
from circinus.spec import Specification


def simulation_inputs(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching
) -> list[PlannedQuery]:
    """Every query that has a plan, with the measurements that it was made from.

    Args:
        specification: what was planned for.
        profiles: pipeline -> its profile.
        matching: the plans.

    Raises:
        PlanningError: a plan's configuration is not in the profile any more.
    """
    queries = {query.name: query for query in specification.queries}
    known = {(name, found.configuration): found for name, p in profiles.items() for found in p.configurations}
    planned = []
    for assignment in matching.assignments:
        chosen, query = assignment.chosen, queries[assignment.query]
        profile = known.get((chosen.plan.pipeline, chosen.plan.configuration))
        if profile is None:
            raise PlanningError(
                f"query {query.name}: found no measurement of its configuration {chosen.plan.configuration}, expected "
                f"it in the profile store; plan again"
            )
        planned.append(
            PlannedQuery(
                query=query,
                pipeline=specification.pipelines[chosen.plan.pipeline],
                plan=chosen.plan,
                profile=profile,
                arrivals=arrival_process(query),
                cost_usd_per_h=chosen.estimate.cost_usd_per_h.value,
            )
        )
    return planned
