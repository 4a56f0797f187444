"""Plans held against a simulation where formulas are not good for them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation import Estimate, PlanCandidate, SloProbabilities
from circinus.estimation.percentiles import UNBOUNDED
from circinus.estimation.slo_probability import latency_slo_probability
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Assignment, Matching
from circinus.planning import Frontier, NearMiss, SingleRelaxation
from circinus.profiling import Interval, PipelineProfile
from circinus.queueing.arrivals import MarkovModulatedPoisson, arrival_process
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.simulation.report import percentile_interval
from circinus.specification import Network, Specification


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


MOST_PLANS = 4
"""So many plans of a query are tried in simulations at most; then it gets none."""

_SLOWER = "slower in a simulation of all queries together"
_TOO_SLOW = "the plans that formulas promise are slower in a simulation of all queries together"


def exclude_refuted(
    frontier: Frontier, tried: PlanCandidate, missed: Mapping[str, PlanCandidate], plans: PlanEstimates
) -> Frontier:
    """The frontier of a query without what is refused.

    Args:
        frontier: before.
        tried: the query's plan.
        missed: queries -> their plans as simulated, of which one at least is too slow beside `tried`; if the query
            itself is among them, so far would its objective have to give way.
        plans: which ones are refused.
    """
    left = plans.without_excluded(frontier.candidates)
    own = missed.get(tried.query)
    reason = _SLOWER if own is not None else f"it would make {' and '.join(missed)} {_SLOWER} than promised"
    near_misses = (NearMiss(own or tried, ("latency",), reason), *frontier.near_misses)
    nearest = min((miss.candidate for miss in near_misses if miss.reason == _SLOWER), key=_slowest_s, default=None)
    relaxed = () if left or nearest is None else (SingleRelaxation("latency", _slowest_s(nearest), nearest),)
    return replace(
        frontier,
        candidates=left,
        high_margin=plans.without_excluded(frontier.high_margin),
        near_misses=near_misses,
        relaxations=relaxed,
        reason="" if left else (_TOO_SLOW if own is not None else reason),
    )


def _slowest_s(candidate: PlanCandidate) -> float:
    return candidate.estimate.latency_s.upper


EXECUTIONS = 3_000_000
"""Of operators and links that are simulated, about: some seconds at most."""
_LEAST_REQUESTS = 400
"""Of a query, below which its latencies are not believed."""
_BURSTS = 200
"""That should be seen."""
_LONGER = 3.0
"""How many times longer is simulated at most to see them."""
_WARM_UP = 0.1
"""Share of the simulated time."""
_SAMPLE = 2_000
"""Latencies that the probability of keeping an objective is taken from."""


@dataclass(frozen=True)
class SimulationCheck:
    """A matching with what a simulation showed."""

    matching: Matching
    """Estimates that formulas are not good for are those of the simulation."""
    violated: Mapping[str, PlanCandidate]
    """Query -> its plan as simulated, where the simulation does not promise the latency that the estimate did."""


def check_by_simulation(
    matching: Matching,
    planned: Sequence[PlannedQuery],
    network: Network,
    *,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> SimulationCheck:
    """Simulate all plans together, if any estimate has doubts, and replace the latencies of those that have.

    Hardware is as fast as it surely is, as for promises. The bounds are those of the simulation's confidence interval,
    the upper one times what the estimate allows for few items. Queries with too few requests in the simulated time keep
    their estimates and doubts.

    Args:
        matching: as sized.
        planned: its queries with their plans.
        network: where they run.
        seed: of the simulation.
        only: queries that are asked about; None: all.
    """
    asked = [a for a in matching.assignments if only is None or a.query in only]
    doubtful = {assignment.query for assignment in asked if assignment.chosen.estimate.caveats}
    if not doubtful:
        return SimulationCheck(matching, {})
    replicas = {sized.deployment: sized.replicas for sized in matching.deployments}
    model = build_model(planned, replicas, network, promised=True)
    duration_s = simulation_horizon_s(planned, model)
    simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed)
    simulation.run()
    latencies = {
        one.query.name: run.latency_s[run.arrival_s >= _WARM_UP * duration_s]
        for one, run in zip(planned, simulation.runs, strict=True)
    }
    known = {one.query.name: one for one in planned}
    assignments, missed = [], {}
    for assignment in matching.assignments:
        name = assignment.query
        if name in doubtful and len(latencies[name]) >= _LEAST_REQUESTS:
            assignment = _with_latencies(assignment, known[name], latencies[name])
            if "latency" in assignment.chosen.estimate.violations(known[name].query.slos):
                missed[name] = assignment.chosen
        assignments.append(assignment)
    return SimulationCheck(replace(matching, assignments=tuple(assignments)), missed)


def simulation_horizon_s(
    planned: Sequence[PlannedQuery], model: SimulationModel, executions: float = EXECUTIONS
) -> float:
    """For how long plans are simulated: for so many executions, longer where bursts are rare."""
    visits = (one.query.rate_per_s * len(query.visits) for one, query in zip(planned, model.queries, strict=True))
    # Bursts are drawn whether a request comes in them or not.
    plain_s = executions / (sum(visits) + sum(1 / period_s for period_s in _periods_s(planned)))
    return max(plain_s, min(_bursts_s(planned), _LONGER * plain_s))


def _bursts_s(planned: Sequence[PlannedQuery]) -> float:
    """How long it takes to see bursts enough of every query that has them."""
    return _BURSTS * max(_periods_s(planned), default=0.0)


def _periods_s(planned: Sequence[PlannedQuery]) -> list[float]:
    """From one burst to the next, of every query that has them."""
    return [sum(one.arrivals.durations_s) for one in planned if isinstance(one.arrivals, MarkovModulatedPoisson)]


def _with_latencies(assignment: Assignment, planned: PlannedQuery, latency_s: FloatArray) -> Assignment:
    before = assignment.chosen.estimate
    seen = percentile_interval(latency_s, before.percentile)
    if not math.isfinite(seen.upper):  # too few for a percentile so far
        return assignment
    for_few_items = before.latency_s.upper / before.latency_s.value if before.latency_s.value > 0 else 1.0
    bounds = Interval(seen.value, seen.lower, min(seen.upper * for_few_items, max(UNBOUNDED, seen.upper)))
    estimate = replace(before, latency_s=bounds, simulated=True)
    estimate = replace(estimate, slo_probability=_odds(estimate, planned, latency_s))
    return replace(assignment, chosen=replace(assignment.chosen, estimate=estimate))


def _odds(estimate: Estimate, planned: PlannedQuery, latency_s: FloatArray) -> SloProbabilities | None:
    """As before, but for the latency."""
    slos, before = planned.query.slos, estimate.slo_probability
    if before is None or slos.latency is None:
        return before
    thinned = latency_s[:: max(1, len(latency_s) // _SAMPLE)]
    likely = latency_slo_probability(np.asarray(thinned), len(planned.profile.items), slos.latency, planned.query.risk)
    promised = 1 - planned.query.risk
    likely = min(likely, promised) if "latency" in estimate.violations(slos) else max(likely, promised)
    return SloProbabilities.of(likely, before.accuracy, before.cost)
