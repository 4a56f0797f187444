"""Admission of one more query while running plans stay: an assignment, or a rejection with binding resources."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.explanation.assignment_explanations import (
    CandidateComparison,
    confirmed_shortages,
    explain_admission,
    infeasible,
)
from circinus.matching.explanation.rejections import explain_rejection
from circinus.matching.explanation.slo_relaxation import (
    changed_slos,
    confirmed_relaxation,
    relax_slo,
    smallest_relaxation,
    wide_relaxation,
    with_slos,
)
from circinus.matching.feasibility import Infeasibility
from circinus.matching.plan_estimates import PlanEstimates, add_startup_times
from circinus.matching.plan_set import (
    Advice,
    Assignment,
    Matching,
    Rejection,
    ShadowPrice,
    with_weights,
)
from circinus.matching.problem import RESOURCES
from circinus.matching.settings import MATCHING
from circinus.matching.simulation_check import (
    SimulationCheck,
    check_by_simulation,
    exclude_refuted,
    simulation_inputs,
)
from circinus.planning import Frontier, plan_query
from circinus.planning.frontier import MEASUREMENTS
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, QueryPlan, SloKind, Specification

_LATE = (SloKind.LATENCY,)


@dataclass(frozen=True)
class Admission:
    """The result of an admission: either an assignment or a rejection."""

    query: Query
    assignment: Assignment | None = None
    """Plan of the admitted query."""
    rejection: Rejection | None = None
    """Reason for the rejection."""
    binding: tuple[ShadowPrice, ...] = ()
    """Shadow prices of the binding resources."""
    simulations: int = 0
    """Number of plans that were simulated."""
    fit: tuple[AdmissionProblem, AdmissionFit] | None = None
    """Input of `add_admitted`."""


@dataclass(frozen=True)
class AdmissionPlanner:
    """Planner of one more query at a time beside running plans, which stay.

    A plan is decided on at its final sizes: the replicas, links and load that it will really have. Formulas decide, or
    a simulation of all plans together where formulas have caveats or miss a latency SLO narrowly. Candidates are the
    frontier's plans, plans on running deployments, and plans that would be too slow at their utilization targets.
    """

    specification: Specification
    profiles: Mapping[str, PipelineProfile]
    matching: Matching
    """The running plans."""
    search: SearchSettings
    plans: PlanEstimates
    running: AdmissionControl
    check_time: Callable[[], None] = lambda: None
    """Called before each admission; an exception that it raises ends a search of many admissions."""

    @classmethod
    def of(
        cls,
        specification: Specification,
        profiles: Mapping[str, PipelineProfile],
        matching: Matching,
        search: SearchSettings = DEFAULT_SETTINGS,
        plans: PlanEstimates | None = None,
    ) -> AdmissionPlanner:
        """Prepare the running plans.

        Args:
            specification: with an infrastructure and all served queries.
            profiles: pipeline name -> profile, of all pipelines in use.
            matching: the running plans.
            search: settings of the plan search.
            plans: estimates to share, if any.

        Raises:
            PlanningError: no infrastructure, a missing profile, or a running plan without profile.
        """
        plans = plans or PlanEstimates(specification, profiles, search.usable_link_share)
        running = running_state(specification, matching, plans, search.usable_link_share)
        return cls(specification, profiles, matching, search, plans, running)

    def with_matching(self, matching: Matching) -> AdmissionPlanner:
        """Return the planner for other running plans; estimates are shared."""
        share = self.search.usable_link_share
        running = running_state(self.specification, matching, self.plans, share)
        return replace(self, matching=matching, running=running)

    def admit(
        self,
        query: Query,
        frontier: Frontier | None = None,
        *,
        neighbours: str = "the running plans",
        short: bool = False,
        max_simulations: int = MATCHING.max_simulated_plans,
        only: QueryPlan | None = None,
    ) -> tuple[Admission, Matching]:
        """Return the admission, and the matching with the query if it was admitted, else unchanged.

        Args:
            query: by name one of the specification's; its SLOs and risk may be others.
            frontier: the query's plans; None: they are searched for.
            neighbours: description of the running plans.
            short: whether short simulations suffice, of which bounds are more cautious, and reasons are not needed.
            max_simulations: maximum number of plans that are simulated.
            only: the one plan that is tried; None: all.
        """
        self.check_time()
        plans = self.plans.with_query(query)
        running = self.running.with_reestimate(plans.reestimate)
        frontier = self._frontier(query, plans, short=short) if frontier is None else frontier
        slower: Sequence[PlanCandidate] = ()
        if only is not None:
            frontier = replace(frontier, candidates=())
        elif query.slos.latency is not None:
            slower = plans.replan(_slower(query), self.search).candidates
            if not short:  # what is shown of a plan is about the query's own limit
                slower = [plans.estimate_of(query.name, candidate.plan) for candidate in slower]
        is_bounded = bool(frontier.candidates) and any(r.query == query.name for r in self.matching.rejections)
        simulations, undecided = 0, False
        confirmed, kept = None, SimulationCheck(self.matching, {})
        limited = max_simulations < MATCHING.max_simulated_plans
        for attempt in count(1):
            decide = partial(
                admit,
                running,
                self.matching,
                frontier,
                extra_candidates=_further_plans(running, plans, frontier, slower, only),
                judged=() if short else plans.without_excluded(_missing(frontier)),
                neighbours=neighbours,
                explained=not short,
                confirmed=confirmed,
            )
            admission = decide(doubtful=attempt <= max_simulations)
            if admission.rejection is not None or admission.fit is None or admission.assignment is None:
                if limited and attempt > max_simulations and admission.rejection is not None:
                    undecided = undecided or decide(doubtful=True).assignment is not None
                    admission = replace(admission, rejection=replace(admission.rejection, undecided=undecided))
                return replace(admission, simulations=simulations), self.matching
            decided = admission.assignment  # its explanation is newer than that of the plan when it was confirmed
            if confirmed is not None and decided.chosen.plan == confirmed.plan:
                break
            specification, (_, fit) = self._with_query(query), admission.fit
            admitted = add_admitted(running, self.matching, admission, specification.queries, is_bounded=is_bounded)
            check, simulated = self._simulate(admitted, specification, fit, query.name, short=short)
            simulations += simulated
            doubtful = bool(fit.unconfirmed)
            if not check.violated:
                kept = check
                if short or not doubtful:
                    break
                confirmed = next(a.chosen for a in check.matching.assignments if a.query == query.name)
                continue  # a cheaper plan may be confirmed, too
            refuted = decided.chosen
            undecided = limited and attempt >= max_simulations and not doubtful  # plans are excluded without a trial
            plans.exclude(query.name, None if attempt >= max_simulations and not doubtful else refuted.plan)
            frontier = exclude_refuted(frontier, refuted, check.violated, plans, doubtful=doubtful)
        assignment, matching = self._started(kept.matching, decided, plans)
        return replace(admission, assignment=assignment, simulations=simulations), matching

    def _frontier(self, query: Query, plans: PlanEstimates, *, short: bool) -> Frontier:
        """Return the query's plans; without reasons if `short`."""
        if short:
            return plans.replan(query, self.search)
        pipeline, profile = self.specification.pipelines[query.pipeline], self.profiles[query.pipeline]
        network = Network(self.specification.required_infrastructure)
        return plan_query(query, pipeline, profile, network, self.search, plans.compiled)

    def _started(self, matching: Matching, decided: Assignment, plans: PlanEstimates) -> tuple[Assignment, Matching]:
        """Return an admitted query's assignment and the matching, with latest starts and times of starting."""
        deployments = add_startup_times(matching.deployments, self.profiles, self.specification.required_infrastructure)
        assignments = tuple(
            replace(decided, chosen=a.chosen) if a.query == decided.query else a for a in matching.assignments
        )
        started = plans.with_latest_starts(replace(matching, assignments=assignments, deployments=deployments))
        return next(a for a in started.assignments if a.query == decided.query), started

    def admitted(self, query: Query, *, short: bool = False) -> PlanCandidate | None:
        """Return the plan of a query if it is admitted; see `admit`."""
        admission, _ = self.admit(query, short=short)
        return None if admission.assignment is None else admission.assignment.chosen

    def isolated_plans(self, query: Query) -> Sequence[PlanCandidate]:
        """Return the query's plans by itself, with those that may be fast enough at their final sizes only."""
        asked = query if query.slos.latency is None else _slower(query)
        return self.plans.with_query(query).replan(asked, self.search).candidates

    def with_relaxation(self, rejection: Rejection) -> Rejection:
        """Return a rejection with the smallest relaxation of its SLOs; `unrelaxable` if it takes several or none does.

        A query that is admitted as it is, as the running plans leave room for it now, only gets this advice.
        """
        (query,) = [query for query in self.specification.queries if query.name == rejection.query]
        admission, _ = self.admit(query)
        if admission.rejection is None:
            advice = Advice(f"it would be admitted as it is: `circinus admit {query.name}`")
            return replace(rejection, relaxation=None, unrelaxable=False, advice=(advice,))
        return self.relaxed(query, rejection, admission.rejection)

    def relaxed(self, query: Query, rejection: Rejection, present: Rejection) -> Rejection:
        """Return a rejection with the smallest relaxation of the query's SLOs beside the running plans.

        Args:
            query: rejected query.
            rejection: its rejection when it was planned.
            present: its rejection beside the running plans, with the plans that were tried. The relaxation depends on
                this one alone, so that explanations and admissions name the same.
        """
        nearest = [alternative.estimate for alternative in present.alternatives]
        relaxation = smallest_relaxation(query, partial(self.admitted, short=True), nearest)
        if relaxation is None or len(changed_slos(query.slos, relaxation.slos)) > 1:
            relaxation = wide_relaxation(query, self.admitted) or relaxation
        changed = () if relaxation is None else changed_slos(query.slos, relaxation.slos)
        rejection = replace(rejection, relaxation=None, unrelaxable=len(changed) != 1 and bool(query.slos.by_kind))
        confirmed = None if relaxation is None else confirmed_relaxation(query, relaxation, self.admitted)
        if confirmed is None:
            return rejection
        return replace(rejection.without_isolated_limits(), relaxation=confirmed)

    def _simulate(
        self, admitted: Matching, specification: Specification, fit: AdmissionFit, name: str, *, short: bool
    ) -> tuple[SimulationCheck, bool]:
        """Return the check of the queries whose load changes, and whether there was a simulation.

        A short simulation refutes most plans that are too slow, and confirms bounds that miss the SLO narrowly.
        """
        changed = {name, *fit.affected_queries}
        estimates = [a.chosen.estimate for a in admitted.assignments if a.query in changed]
        uncertain = any(estimate.caveats for estimate in estimates)
        if not uncertain and not fit.unconfirmed:
            return SimulationCheck(admitted, {}), False
        check = partial(
            check_by_simulation,
            admitted,
            simulation_inputs(specification, self.profiles, admitted),
            Network(specification.required_infrastructure),
            restrict_to=changed,
            unconfirmed=fit.unconfirmed,
        )
        quick = check(executions=MATCHING.short_executions)
        return (check() if uncertain and not short and not quick.violated else quick), True

    def _with_query(self, query: Query) -> Specification:
        """Return the specification with a query in place of the one of its name."""
        queries = tuple(query if other.name == query.name else other for other in self.specification.queries)
        return replace(self.specification, queries=queries)


def _further_plans(
    running: AdmissionControl,
    plans: PlanEstimates,
    frontier: Frontier,
    slower: Sequence[PlanCandidate],
    only: QueryPlan | None,
) -> Sequence[PlanCandidate]:
    """Return plans besides the frontier's: on running deployments, and those that are late at utilization targets.

    Without the latter, the nearest plan would not be among those that are tried, and a relaxation could be tighter than
    the bound that the rejection states.
    """
    if only is not None:
        composed = plans.on_deployments(frontier.query, only.deployments, any_latency=True)
        return [candidate for candidate in composed if candidate.plan == only]
    composed = plans.on_deployments(frontier.query, running.deployments, any_latency=True)
    late = (miss.candidate for miss in frontier.near_misses if miss.violations == _LATE)
    return [*composed, *plans.without_excluded([*slower, *late])]


def _missing(frontier: Frontier) -> list[PlanCandidate]:
    """Return the plans that miss SLOs at utilization targets, of a query with enough measurements."""
    if frontier.binding == (MEASUREMENTS,):
        return []
    best = [] if frontier.best_effort is None else [frontier.best_effort.candidate]
    return [*best, *(miss.candidate for miss in frontier.near_misses)]


def _slower(query: Query) -> Query:
    """Return the query with a latency limit for plans that may be fast enough at their final sizes."""
    return with_slos(query, relax_slo(query.slos, SloKind.LATENCY, MATCHING.second_look_factor - 1))


def running_state(
    specification: Specification, matching: Matching, plans: PlanEstimates, usable_link_share: float
) -> AdmissionControl:
    """Prepare the served plans of a matching for the admission of one more query.

    Args:
        specification: with all served queries.
        matching: the running plans.
        plans: estimates of the specification's plans.
        usable_link_share: of the matching.

    Raises:
        PlanningError: a running plan has no profile any more.
    """
    served = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
    return AdmissionControl(
        [query for query in specification.queries if query.name in served],
        {name: plans.estimate_of(name, plan) for name, plan in served.items()},
        matching.deployments,
        specification.required_infrastructure,
        plans.reestimate,
        usable_link_share,
    )


def admit(
    running: AdmissionControl,
    matching: Matching,
    frontier: Frontier,
    *,
    extra_candidates: Sequence[PlanCandidate] = (),
    judged: Sequence[PlanCandidate] = (),
    neighbours: str = "the running plans",
    doubtful: bool = False,
    confirmed: PlanCandidate | None = None,
    explained: bool = True,
) -> Admission:
    """Give a query the plan that adds the least cost to the running plans, if any fits.

    A plan fits if capacities, packing on nodes, and the SLOs of the query and of all running queries hold at the new
    sizes.

    Args:
        running: the running plans, prepared by `running_state`.
        matching: the running plans.
        frontier: the query's plans.
        extra_candidates: further plans.
        judged: plans of which a rejection says what they miss as sized.
        neighbours: description of the running plans.
        doubtful: whether to return the plan nearest to the latency SLO, with `AdmissionFit.unconfirmed` queries, if no
            plan meets all SLOs by formula.
        confirmed: such a plan, as a simulation confirmed it; returned unless `doubtful` and there are cheaper ones.
        explained: whether to try as sized the plans that are shown besides, or that lack room in a pool alone.
    """
    query = frontier.query
    candidates = tuple({plan.plan: plan for plan in (*frontier.candidates, *extra_candidates)}.values())
    prepared = running.prepare(query, candidates)
    failed: dict[int, CandidateComparison] = {}
    for position, outcome in running.try_candidates(prepared, query.slos):
        if isinstance(outcome, AdmissionFit):
            assignment = explain_admission(
                running, prepared, position, outcome, frontier, failed, neighbours=neighbours, confirms=explained
            )
            return Admission(query, assignment, fit=(prepared, outcome))
        failed[position] = infeasible(candidates[position], outcome)
    late = {p: comparison.rank[1] for p, comparison in failed.items() if comparison.is_late}
    limit_s = math.inf if query.slos.latency is None else query.slos.latency.limit_s
    order = prepared.doubtful_order(late, limit_s, confirmed, cheaper=doubtful) if doubtful or confirmed else ()
    for position in order:
        fit = running.try_candidate(prepared, position, query.slos, doubtful=True)
        if isinstance(fit, AdmissionFit):
            assignment = explain_admission(
                running, prepared, position, fit, frontier, failed, neighbours=neighbours, confirms=explained
            )
            return Admission(query, assignment, fit=(prepared, fit))
    if explained:
        offered = {candidate.plan for candidate in candidates}
        prepared = running.prepare(query, (*candidates, *(plan for plan in judged if plan.plan not in offered)))
        for position in range(len(candidates), len(prepared.problem.candidates)):
            outcome = running.try_candidate(prepared, position, query.slos)
            if isinstance(outcome, Infeasibility):
                failed[position] = infeasible(prepared.problem.candidates[position], outcome)
    compared = confirmed_shortages(running, prepared, query.slos, failed) if explained else tuple(failed.values())
    rejection = explain_rejection(frontier, compared, neighbours=neighbours)
    prices = {price.resource: price for price in matching.prices}
    return Admission(query, None, rejection, tuple(prices[name] for name in rejection.binding if name in prices))


def add_admitted(
    running: AdmissionControl,
    matching: Matching,
    admission: Admission,
    queries: Sequence[Query],
    *,
    is_bounded: bool = False,
) -> Matching:
    """Return the matching with an admitted query; its bounds follow from those of the other queries.

    Args:
        running: the running plans, prepared by `running_state`.
        matching: the running plans.
        admission: of an admitted query.
        queries: the specification's, in the order of the new matching; queries that are neither served nor rejected in
            the matching are ignored.
        is_bounded: whether the bound on the weight counts the query, which a plan at utilization targets may serve.
    """
    assert admission.fit is not None
    assert admission.assignment is not None
    query, assignment, (prepared, fit) = admission.query, admission.assignment, admission.fit
    affected = running.affected_plans(fit)
    position = {item.name: index for index, item in enumerate(queries)}
    current = [replace(item, chosen=affected.get(item.query, item.chosen)) for item in matching.assignments]
    used = _used(prepared, fit)
    admitted = replace(
        matching,
        assignments=tuple(sorted((*current, assignment), key=lambda item: position.get(item.query, len(position)))),
        rejections=tuple(rejection for rejection in matching.rejections if rejection.query != query.name),
        deployments=fit.deployments,
        cost_usd_per_h=fit.cost_usd_per_h,
        optimal=False,
        cost_bound_usd_per_h=min(matching.cost_bound_usd_per_h, fit.cost_usd_per_h),
        prices=tuple(replace(price, used=used.get(price.resource, price.used)) for price in matching.prices),
    )
    # Without the query, the result is a matching of the other queries, so their bounds apply.
    unbounded_weight = 0.0 if is_bounded else query.weight
    return with_weights(admitted, queries, running.infrastructure.tenants, unbounded_weight=unbounded_weight)


def _used(prepared: AdmissionProblem, fit: AdmissionFit) -> dict[str, float]:
    """Return resource -> share of its capacity in use."""
    problem, rows = prepared.problem, prepared.problem.rows
    used = {
        f"pool {problem.pools[rows.pool[row]]}: {RESOURCES[rows.resource[row]]}": float(fit.rows[row] / limit)
        for row, limit in enumerate(rows.limit)
        if rows.plain[row]
    }
    link_usage = fit.traffic_bytes_per_s / problem.link_capacity_bytes_per_s
    return used | {f"link {name}": float(share) for name, share in zip(problem.links, link_usage, strict=True)}
