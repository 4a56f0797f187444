"""Simulation of a plan."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from circinus.matching.simulation_check import simulation_inputs
from circinus.simulation import simulate
from circinus.specification import Network

if TYPE_CHECKING:
    from circinus.api.plan_context import LoadedPlan
    from circinus.simulation import SimulationReport
    from circinus.simulation.simulate import Progress

_log = logging.getLogger(__name__)


def simulate_plan(
    opened: LoadedPlan,
    *,
    load: float,
    duration_s: float,
    warm_up_s: float,
    seed: int,
    on_progress: Callable[[Progress], None] | None = None,
) -> SimulationReport:
    """Simulate the served queries of a plan with their measurements.

    Args:
        opened: plan with its specification and profile store.
        load: factor on the rate of each query.
        duration_s: simulated seconds.
        warm_up_s: simulated seconds before figures are taken.
        seed: seed of arrivals and items.
        on_progress: callback during long simulations.

    Raises:
        PlanningError: the plan has no infrastructure, or a number has no meaning.
    """
    matching, infrastructure = opened.plan_set.matching, opened.specification.required_infrastructure
    _log.info("simulate %g s at %g times the rates", duration_s, load)
    served = {assignment.query for assignment in matching.assignments}
    return simulate(
        simulation_inputs(opened.specification, opened.profiles(), matching),
        {sized.deployment: sized.replicas for sized in matching.deployments},
        Network(infrastructure),
        duration_s=duration_s,
        warm_up_s=warm_up_s,
        load=load,
        seed=seed,
        unserved_weight=sum(query.weight for query in opened.specification.queries if query.name not in served),
        on_progress=on_progress,
    )
