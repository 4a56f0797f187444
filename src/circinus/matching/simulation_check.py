"""Checks of plans by simulation where the analytical estimates are inaccurate."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from circinus.arrays import FloatArray
from circinus.errors import PlanningError
from circinus.estimation import Estimate, PlanCandidate, SloProbabilities
from circinus.estimation.percentiles import UNBOUNDED, PercentileEstimator
from circinus.estimation.slo_probability import bounded_latency_probability
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Assignment, Matching
from circinus.matching.settings import MATCHING
from circinus.planning import Frontier, NearMiss, SingleRelaxation
from circinus.planning.frontier import query_kind
from circinus.planning.violations import describe_violation
from circinus.profiling import PipelineProfile
from circinus.queueing.arrivals import MarkovModulatedPoisson, arrival_process
from circinus.simulation import PlannedQuery
from circinus.simulation.engine import QueryRun, Simulation
from circinus.simulation.model_builder import SimulationModel, build_model
from circinus.simulation.report import CONFIDENCE, has_bounds, percentile_interval
from circinus.specification import Network, QueryPlan, SloKind, Specification
from circinus.statistics.interval import Interval


def simulation_inputs(
    specification: Specification, profiles: Mapping[str, PipelineProfile], matching: Matching
) -> list[PlannedQuery]:
    """Return every planned query with the measurements behind all parts of its plan.

    Args:
        specification: of the plans.
        profiles: pipeline -> its profile.
        matching: the plans.

    Raises:
        PlanningError: a plan's configuration is not in the profile any more.
    """
    queries = {query.name: query for query in specification.queries}
    profiled = {(name, c.configuration): c for name, p in profiles.items() for c in p.configurations}
    planned = []
    for assignment in matching.assignments:
        chosen, query = assignment.chosen, queries[assignment.query]
        measured = []
        for part in chosen.plan.parts:
            profile = profiled.get((part.plan.pipeline, part.plan.configuration))
            if profile is None:
                raise PlanningError(
                    f"the profile store has no measurement of configuration {part.plan.configuration}",
                    code="plan.unprofiled_configuration",
                    location=f"query {query.name}",
                    hint="Run `circinus plan` again.",
                )
            measured.append(profile)
        planned.append(
            PlannedQuery(
                query=query,
                pipeline=specification.pipelines[chosen.plan.pipeline],
                plan=chosen.plan,
                profile=measured[0],
                other_profiles=tuple(measured[1:]),
                arrivals=arrival_process(query),
                cost_usd_per_h=chosen.estimate.cost_usd_per_h.value,
            )
        )
    return planned


_LAST_PERCENTILE = 100.0 - 1e-7
"""Percentile of plans of which interruptions delay as many requests as the SLO allows: no simulation confirms them."""
_NARROW = "the formula's bound misses the limit narrowly"
_SIMULATED = "in a simulation of all queries together"
_ALL_TOO_SLOW = "the plans that were tried meet the SLOs by formula but not in a simulation of all queries together"
_NONE_CONFIRMED = (
    "its plans miss the latency SLO by formula, and the nearest in a simulation of all queries together, too"
)


def exclude_refuted(
    frontier: Frontier,
    tried: PlanCandidate,
    violating: Mapping[str, PlanCandidate],
    plans: PlanEstimates,
    *,
    doubtful: bool = False,
) -> Frontier:
    """Return the frontier of a query without the excluded plans.

    Args:
        frontier: before.
        tried: the query's plan.
        violating: queries -> their plans as simulated, at least one of which is too slow together with `tried`; if the
            query itself is among them, its simulated latency becomes the required relaxation.
        plans: with the excluded plans.
        doubtful: whether the plan missed an SLO by formula, too.
    """
    remaining = plans.without_excluded(frontier.candidates)
    own = violating.get(tried.query)
    slo = frontier.query.slos.latency
    if own is None or slo is None:
        reason = f"it would make {' and '.join(violating)} slower {_SIMULATED} than guaranteed"
    elif own.estimate.simulated:
        reason = f"{describe_violation(own.estimate, slo, sized=True)} {_SIMULATED}"
    else:
        reason = f"{describe_violation(own.estimate, slo, sized=True)}, not confirmed {_SIMULATED}"
    is_sized = own is not None and slo is not None
    near_misses = (NearMiss(own or tried, (SloKind.LATENCY,), reason, is_sized=is_sized), *frontier.near_misses)
    if not frontier.candidates:  # the plan was tried at its final sizes only
        return replace(frontier, near_misses=near_misses)
    simulated = (miss.candidate for miss in near_misses if miss.candidate.estimate.simulated)
    slower = [] if remaining or slo is None else [plan for plan in simulated if not slo.is_met_by(_bound_s(plan))]
    nearest = min(slower, key=_bound_s, default=None)
    return replace(
        frontier,
        candidates=remaining,
        high_margin=plans.without_excluded(frontier.high_margin),
        near_misses=near_misses,
        relaxations=() if nearest is None else (SingleRelaxation(SloKind.LATENCY, _bound_s(nearest), nearest),),
        binding=() if remaining else (SloKind.LATENCY,),
        reason="" if remaining else (reason if own is None else _NONE_CONFIRMED if doubtful else _ALL_TOO_SLOW),
    )


def _bound_s(candidate: PlanCandidate) -> float:
    return candidate.estimate.latency_s.upper


@dataclass(frozen=True)
class SimulationCheck:
    """A matching with its simulation results."""

    matching: Matching
    """Matching in which uncertain estimates are replaced by simulated ones."""
    violated: Mapping[str, PlanCandidate]
    """Query -> its plan as simulated, if it violates the latency SLO in the simulation."""
    late_parts: Mapping[str, QueryPlan] = field(default_factory=dict)
    """Query that violates it with a split plan -> the part of which the largest share of requests is late."""


def check_by_simulation(
    matching: Matching,
    planned: Sequence[PlannedQuery],
    network: Network,
    *,
    seed: int = 0,
    restrict_to: Collection[str] | None = None,
    unconfirmed: Collection[str] = (),
    executions: float = MATCHING.simulated_executions,
    requests: float = 0.0,
    early_risk: float = MATCHING.early_risk,
) -> SimulationCheck:
    """Simulate all plans together if any estimate has caveats, and replace the latencies of those estimates.

    Spare replicas are left out, and the share of requests that interruptions may delay counts as late. Hardware has its
    guaranteed speed. Bounds are those of the simulation's confidence interval; the upper one is scaled by the
    estimate's allowance for few items. Dropped requests are late. Queries with too few simulated requests keep their
    estimates and caveats. The latency of a query with a split plan is that of all its requests. Those of each part are
    scaled by the allowance of the part's estimate. Queries that differ in name, weight, priority and tenant only and
    have the same plan wait alike: the requests of all of them count for each.

    Each interim analysis comes after twice the time of the one before. The simulation ends at the first at which the
    verdicts on all queries are sure: a whole confidence interval is on one side of the limit. The intervals there are
    as wide as the risk of all interim analyses together requires (Bonferroni).

    Args:
        matching: as sized.
        planned: its queries with their plans.
        network: of the infrastructure.
        seed: of the simulation.
        restrict_to: queries to check; None: all.
        unconfirmed: queries to check although formulas are accurate, as their bounds miss the SLO narrowly.
        executions: approximate maximum number of simulated executions.
        requests: number of requests of each unconfirmed query that are simulated even if they take more executions, up
            to the default.
        early_risk: probability that an interval of an interim analysis does not contain the percentile; 0: there is no
            interim analysis.
    """
    matching = _with_doubts(matching, unconfirmed)
    assignments = [a for a in matching.assignments if restrict_to is None or a.query in restrict_to]
    uncertain = {assignment.query: assignment for assignment in assignments if assignment.chosen.estimate.caveats}
    if not uncertain:
        return SimulationCheck(matching, {})
    replicas = {d.deployment: d.replicas - d.demand.spare_replicas for d in matching.deployments}
    model = build_model(planned, replicas, network, with_margins=True)
    streams = defaultdict[object, list[int]](list)
    for index, plan in enumerate(planned):
        streams[_stream(plan)].append(index)
    rates_per_s = {
        p.query.name: p.query.rate_per_s * len(streams[_stream(p)]) for p in planned if p.query.name in unconfirmed
    }
    duration_s = simulation_horizon_s(planned, model, executions)
    if rates_per_s and requests:
        needed_s = requests / min(rates_per_s.values()) / (1 - MATCHING.warm_up_share)
        duration_s = max(duration_s, min(needed_s, simulation_horizon_s(planned, model)))
    simulation = Simulation(model.stations, model.queries, duration_s=duration_s, seed=seed)
    checked = {
        plan.query.name: _CheckedQuery(
            uncertain[plan.query.name],
            plan,
            [[simulation.runs[model.parts[i][part]] for i in streams[_stream(plan)]] for part in range(len(parts))],
        )
        for plan, parts in zip(planned, model.parts, strict=True)
        if plan.query.name in uncertain
    }
    for look in range(-MATCHING.interim_analyses if early_risk else 0, 1):
        until_s = duration_s * 2.0**look
        confidence = 1 - early_risk / MATCHING.interim_analyses if look else CONFIDENCE
        simulation.run(end_s=until_s if look else math.inf)
        if look and all(query.is_decided(until_s, duration_s, confidence) for query in checked.values()):
            break
    updated, violated, late_parts = [], {}, {}
    for assignment in matching.assignments:
        name = assignment.query
        if name in checked:
            simulated = checked[name].simulated(until_s, confidence)
            assignment = simulated or assignment
            estimate, slos = assignment.chosen.estimate, checked[name].planned.query.slos
            is_late = simulated is not None and SloKind.LATENCY in estimate.violations(slos)
            if is_late or (name in unconfirmed and not estimate.simulated):  # too few requests to confirm it
                violated[name] = assignment.chosen
                if assignment.chosen.plan.is_split:
                    late_parts[name] = checked[name].latest_part(until_s)
        updated.append(assignment)
    return SimulationCheck(replace(matching, assignments=tuple(updated)), violated, late_parts)


@dataclass(frozen=True, eq=False)
class _CheckedQuery:
    assignment: Assignment
    planned: PlannedQuery
    stream_runs: Sequence[Sequence[QueryRun]]
    """Requests of each part of the plan, of all queries that wait alike."""

    @property
    def runs(self) -> list[QueryRun]:
        """Requests of each part of the plan."""
        return [_pooled(runs) for runs in self.stream_runs]

    @property
    def percentile(self) -> float:
        """The SLO's percentile among requests that interruptions of nodes do not delay."""
        chosen = self.assignment.chosen
        percentile, uses = chosen.estimate.percentile, chosen.deployments
        in_time = math.prod(1.0 - use.demand.late_share for use in uses)
        return min(percentile / max(in_time, percentile / 100), _LAST_PERCENTILE)

    def is_decided(self, until_s: float, duration_s: float, confidence: float) -> bool:
        """Return whether more requests will surely not change the verdict on the latency.

        Args:
            until_s: simulated time.
            duration_s: maximum simulated time.
            confidence: of the interval.
        """
        requests = sum(len(run.arrival_s) - _warm_up(run, duration_s) for run in self.runs)
        if requests < MATCHING.min_simulated_requests:
            return True  # there will be no verdict
        percentile, latency_s = self.percentile, _latency_s(self.runs, until_s)
        if len(latency_s) < MATCHING.min_simulated_requests or not has_bounds(len(latency_s), percentile):
            return False
        slo = self.planned.query.slos.latency
        if slo is None:
            return True
        bounds = self._bounded(until_s, confidence)
        return slo.is_met_by(bounds.upper) or not slo.is_met_by(bounds.lower)

    def simulated(self, until_s: float, confidence: float) -> Assignment | None:
        """Return the assignment with its latency in the simulation, or None if there are too few requests."""
        latency_s = _latency_s(self.runs, until_s)
        if len(latency_s) < MATCHING.min_simulated_requests:
            return None
        previous = self.assignment.chosen.estimate
        measured = percentile_interval(latency_s, self.percentile, confidence)
        upper_s = self._bounded(until_s, confidence).upper
        if not math.isfinite(upper_s):  # too few independent requests for such a high percentile
            return self.assignment
        upper_s = min(max(upper_s, measured.upper), max(UNBOUNDED, measured.upper))
        estimate = replace(previous, latency_s=Interval(measured.value, measured.lower, upper_s), simulated=True)
        estimate = replace(estimate, slo_probability=_slo_probability(estimate, self.planned, latency_s))
        return replace(self.assignment, chosen=replace(self.assignment.chosen, estimate=estimate))

    def _bounded(self, until_s: float, confidence: float) -> Interval:
        """Return bounds of the percentile with allowances for few items.

        An allowance is the factor from a formula's value to its upper bound. Where a percentile lies between two items,
        as that of 95 % of the requests between the slowest two of 20, the value may be at one of them, and the
        simulation at the other: the factor counts their difference twice. So where it refutes a plan, bounds of
        sections of items count instead, as in `PercentileEstimator`, with the factor for measured times only.
        """
        slo, factors = self.planned.query.slos.latency, self._allowances
        whole = self._scaled(factors, self.percentile, until_s, confidence)
        if slo is None or slo.is_met_by(whole.upper) or not math.isfinite(whole.upper):
            return whole
        estimates = (part.estimate for part in self.assignment.chosen.unsplit)
        factors = [e.times_allowance or factor for e, factor in zip(estimates, factors, strict=True)]
        estimator = PercentileEstimator.at(self.percentile, self.planned.query.risk)
        percentile, count = estimator.section_percentile, estimator.grid.sections
        sections = [self._scaled(factors, percentile, until_s, confidence, (n, count)) for n in range(count)]
        value, lower, upper = (max(getattr(s, name) for s in sections) for name in ("value", "lower", "upper"))
        return Interval(min(whole.value, value), min(whole.lower, lower), min(whole.upper, upper))

    def _scaled(
        self,
        factors: Sequence[float],
        percentile: float,
        until_s: float,
        confidence: float,
        section: tuple[int, int] = (0, 1),
    ) -> Interval:
        """Return the interval of a percentile with a factor on the latencies of each part.

        Args:
            factors: of each part.
            percentile: in (0, 100).
            until_s: simulated time.
            confidence: of the interval.
            section: number of a section of items, and number of sections.
        """
        runs = []
        for factor, run in zip(factors, self.runs, strict=True):
            own = run.items % section[1] == section[0]
            columns = {name: getattr(run, name)[own] for name in ("arrival_s", "items", "dropped_s")}
            runs.append(replace(run, **columns, done_s=(run.arrival_s + factor * run.latency_s)[own]))
        latency_s = _latency_s(runs, until_s)
        return percentile_interval(latency_s, percentile, confidence) if len(latency_s) else Interval(0.0, 0.0, 0.0)

    @property
    def _allowances(self) -> list[float]:
        """Allowance of each part's estimate for few items."""
        estimates = [part.estimate.latency_s for part in self.assignment.chosen.unsplit]
        return [latency_s.upper / latency_s.value if latency_s.value > 0 else 1.0 for latency_s in estimates]

    def latest_part(self, until_s: float) -> QueryPlan:
        """Return the part of a split plan of which the largest share of requests exceeds the limit."""
        slo, late = self.planned.query.slos.latency, list[float]()
        limit_s = math.inf if slo is None else slo.limit_s
        for factor, run in zip(self._allowances, self.runs, strict=True):
            latency_s = factor * _latency_s([run], until_s)
            late.append(float((latency_s > limit_s).sum() / max(len(latency_s), 1)))
        return self.planned.plan.parts[int(np.argmax(late))].plan


def _stream(planned: PlannedQuery) -> object:
    """Return a key that is equal for queries of a kind with the same plan."""
    return query_kind(planned.query), planned.plan


def _pooled(runs: Sequence[QueryRun]) -> QueryRun:
    """Return the requests of several queries with the same items, in order of arrival."""
    if len(runs) == 1:
        return runs[0]
    order = np.argsort(np.concatenate([run.arrival_s for run in runs]), kind="stable")
    names = ("arrival_s", "items", "done_s", "dropped_s")
    return QueryRun(runs[0].query, *(np.concatenate([getattr(run, name) for run in runs])[order] for name in names))


def _latency_s(runs: Sequence[QueryRun], until_s: float) -> FloatArray:
    """Return the latencies of all requests of a query after the warm-up and before the first open one."""
    run = QueryRun.merged(runs)
    return np.minimum(run.latency_s[_warm_up(run, until_s) : run.ended], UNBOUNDED)


def _warm_up(run: QueryRun, until_s: float) -> int:
    return int(np.searchsorted(run.arrival_s, MATCHING.warm_up_share * until_s))


def _with_doubts(matching: Matching, unconfirmed: Collection[str]) -> Matching:
    """Return the matching with a caveat on the estimates of some queries."""
    if not unconfirmed:
        return matching
    assignments = []
    for assignment in matching.assignments:
        if assignment.query in unconfirmed:
            chosen = assignment.chosen
            estimate = replace(chosen.estimate, caveats=(*chosen.estimate.caveats, _NARROW))
            assignment = replace(assignment, chosen=replace(chosen, estimate=estimate))
        assignments.append(assignment)
    return replace(matching, assignments=tuple(assignments))


def simulation_horizon_s(
    planned: Sequence[PlannedQuery], model: SimulationModel, executions: float = MATCHING.simulated_executions
) -> float:
    """Return the simulated time: a number of executions, extended if bursts are rare."""
    rates_per_s = (plan.query.rate_per_s for plan in planned)
    visits = (rate * visits for rate, visits in zip(rates_per_s, model.visits_per_request, strict=True))
    # Bursts are simulated even if no request arrives in them.
    base_s = executions / (sum(visits) + sum(1 / period_s for period_s in _burst_periods_s(planned)))
    return max(base_s, min(_bursts_s(planned), MATCHING.max_extension * base_s))


def _bursts_s(planned: Sequence[PlannedQuery]) -> float:
    """Return the time in which every bursty query has enough bursts."""
    return MATCHING.simulated_bursts * max(_burst_periods_s(planned), default=0.0)


def _burst_periods_s(planned: Sequence[PlannedQuery]) -> list[float]:
    """Return the mean times between bursts of all bursty queries."""
    return [sum(plan.arrivals.durations_s) for plan in planned if isinstance(plan.arrivals, MarkovModulatedPoisson)]


def _slo_probability(estimate: Estimate, planned: PlannedQuery, latency_s: FloatArray) -> SloProbabilities | None:
    """Return the estimate's SLO probabilities, with the latency's from the simulation."""
    slos, previous = planned.query.slos, estimate.slo_probability
    if previous is None or slos.latency is None:
        return previous
    thinned = latency_s[:: max(1, len(latency_s) // MATCHING.max_sample)]
    latency, items = bounded_latency_probability(
        np.asarray(thinned),
        min(len(profile.items) for profile in planned.profiles),
        slos.latency,
        planned.query.risk,
        is_guaranteed=SloKind.LATENCY not in estimate.violations(slos),
    )
    return SloProbabilities.of(latency, previous.accuracy, previous.cost, items)
