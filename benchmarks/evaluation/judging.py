"""Judgement of a planner's promises: all queries together in one simulation with the true times of each item.

A query counts as kept if its latency, accuracy and cost objectives all hold. The accuracy is the mean score of all
recorded items under what ran, and the cost that of the query's part of all replicas, so that neither is left to chance.
The latency is a percentile of at least 2,000 simulated requests: it is missed if it is beyond the limit by more than
chance (5 %), and too close to call where chance could decide either way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.evaluation.contest import Contest
from benchmarks.possible.promises import overfull
from circinus.arrays import FloatArray
from circinus.estimation import PlanCandidate
from circinus.matching import Matching
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.simulation_check import simulation_inputs
from circinus.planning.bin_packing import pack_on_fewest
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import Simulation
from circinus.simulation.model_builder import build_model
from circinus.simulation.report import percentile_interval
from circinus.specification import Deployment, Network
from circinus.statistics.interval import Interval

MIN_REQUESTS = 2_000
"""Expected number of requests of the query with the lowest rate, after the warm-up; others get more."""
_WARM_UP = 0.1
_CONFIDENCE = 0.9
"""Confidence of both bounds: each is beyond the percentile with a probability of 5 %."""
_ROUNDING = 1e-9
_PACKING_STEPS = 500


@dataclass(frozen=True)
class Verdict:
    """Outcome of a served query."""

    query: str
    weight: float
    requests: int
    latency_s: float
    """At the percentile of the SLO; 0 without one."""
    accuracy: float
    """Mean score of all recorded items."""
    latency_held: bool
    accuracy_held: bool
    cost_held: bool
    too_close: bool
    """Whether the latency may be on either side of its limit."""

    @property
    def kept(self) -> bool:
        """Whether all objectives held."""
        return self.latency_held and self.accuracy_held and self.cost_held


@dataclass(frozen=True)
class Judgement:
    """Outcome of all plans of a planner."""

    verdicts: tuple[Verdict, ...]
    usd_per_h: Mapping[str, float]
    """Cost under each of `PRICES`."""

    @property
    def goodput(self) -> float:
        """Weight of the queries whose objectives all held."""
        return sum(verdict.weight for verdict in self.verdicts if verdict.kept)

    @property
    def kept(self) -> frozenset[str]:
        """Names of these queries."""
        return frozenset(verdict.query for verdict in self.verdicts if verdict.kept)

    @property
    def broken(self) -> int:
        """Number of served queries of which an objective did not hold."""
        return sum(not verdict.kept for verdict in self.verdicts)

    @property
    def too_close(self) -> int:
        """Number of kept queries whose latency is too close to its limit to call."""
        return sum(verdict.kept and verdict.too_close for verdict in self.verdicts)


PRICES = ("share", "node", "busy seconds")
"""What is paid: the reserved share of each node; whole nodes, the fewest on which the replicas of a pool fit; or the
seconds that replicas are busy, as the prototype of the paper counts them."""


def judged(contest: Contest, matching: Matching, seed: int) -> Judgement:
    """Simulate the plans on the truth.

    Args:
        contest: of the plans.
        matching: plans and replicas.
        seed: of the simulation.

    Raises:
        ValueError: the plans need more of a node or a link than it has.
        PlanningError: a single query overloads a link.
    """
    planned = simulation_inputs(contest.specification, contest.truth, matching)
    return judged_by(contest, matching, _simulated(planned, matching, contest, seed) if planned else [])


def judged_by(contest: Contest, matching: Matching, latencies: Sequence[FloatArray]) -> Judgement:
    """Judge the plans by the latencies of their requests, simulated or measured.

    Args:
        contest: of the plans.
        matching: plans and replicas.
        latencies: (n,) latencies in order of arrival of each plan's query, n >= 1; infinite without an answer.

    Raises:
        ValueError: the plans need more of a node or a link than it has.
    """
    excess = list(overfull(contest.specification, matching))
    if excess:
        raise ValueError(f"{contest.name}: {', '.join(excess)} is overfull")
    plans = PlanEstimates(contest.specification, contest.truth)
    true = [plans.estimate_of(assignment.query, assignment.chosen.plan) for assignment in matching.assignments]
    cost_usd_per_h = _attributed_usd_per_h(true, matching)
    planned = simulation_inputs(contest.specification, contest.truth, matching)
    return Judgement(tuple(map(_verdict, planned, latencies, cost_usd_per_h)), _usd_per_h(contest, matching, true))


def _simulated(planned: Sequence[PlannedQuery], matching: Matching, contest: Contest, seed: int) -> list[FloatArray]:
    """Return the latencies of each query's requests after the warm-up, in order of arrival."""
    replicas = {sized.deployment: sized.replicas - sized.demand.spare_replicas for sized in matching.deployments}
    moments = contest.moments or (contest.specification.required_infrastructure,)
    duration_s = MIN_REQUESTS / len(moments) / (1 - _WARM_UP) / min(one.query.rate_per_s for one in planned)
    latencies = []
    for number, moment in enumerate(moments):
        model = build_model(planned, replicas, Network(moment))
        simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed + number)
        simulation.run()
        runs = map(simulation.merged_run, model.parts)
        latencies.append([run.latency_s[np.searchsorted(run.arrival_s, _WARM_UP * duration_s) :] for run in runs])
    return [np.concatenate(of_query) for of_query in zip(*latencies, strict=True)]


def _verdict(planned: PlannedQuery, latency_s: FloatArray, usd_per_h: float) -> Verdict:
    query, slos = planned.query, planned.query.slos
    bounds, in_time, surely = Interval.exact(0.0), True, True
    if slos.latency is not None:
        bounds = percentile_interval(latency_s, query.slos.percentile, _CONFIDENCE)
        in_time, surely = slos.latency.is_met_by(bounds.lower), slos.latency.is_met_by(bounds.upper)
    parts = zip(planned.plan.parts, planned.profiles, strict=True)
    score = sum(part.share * float(profile.scores.mean()) for part, profile in parts)
    return Verdict(
        query=query.name,
        weight=query.weight,
        requests=len(latency_s),
        latency_s=bounds.value,
        accuracy=score,
        latency_held=in_time,
        accuracy_held=slos.accuracy is None or slos.accuracy.margin(score) >= -_ROUNDING,
        cost_held=slos.cost is None or usd_per_h <= slos.cost.limit_usd_per_h * (1 + _ROUNDING),
        too_close=in_time and not surely,
    )


def _attributed_usd_per_h(plans: Sequence[PlanCandidate], matching: Matching) -> list[float]:
    """Return each query's cost: its part of all replicas, by the seconds that it keeps them busy, and its transfers."""
    busy = defaultdict[Deployment, float](float)
    for plan in plans:
        for use in plan.deployments:
            busy[use.deployment] += use.busy_replicas
    paid = {sized.deployment: sized.cost_usd_per_h for sized in matching.deployments}
    return [
        plan.transfer_cost_usd_per_h
        + sum(paid[use.deployment] * use.busy_replicas / busy[use.deployment] for use in plan.deployments)
        for plan in plans
    ]


def _usd_per_h(contest: Contest, matching: Matching, plans: Sequence[PlanCandidate]) -> dict[str, float]:
    """Return the cost of all plans under each of `PRICES`."""
    transfers = sum(plan.transfer_cost_usd_per_h for plan in plans)
    shares = sum(sized.demand.cost_usd_per_h * sized.replicas for sized in matching.deployments)
    busy = sum(use.busy_replicas * use.demand.cost_usd_per_h for plan in plans for use in plan.deployments)
    nodes = 0.0
    for pool in contest.specification.required_infrastructure.pools:
        own = [sized for sized in matching.deployments if sized.deployment.pool == pool.name]
        if own:
            demand, replicas = np.array([s.demand.amounts for s in own]), np.array([s.replicas for s in own])
            fewest = pack_on_fewest(demand, replicas, np.array(pool.amounts), 0, pool.nodes, _PACKING_STEPS)
            nodes += pool.price_usd_per_h * fewest.count
    return dict(zip(PRICES, (shares + transfers, nodes + transfers, busy + transfers), strict=True))
