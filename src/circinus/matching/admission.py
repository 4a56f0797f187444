"""Admission of one more query while running plans stay, in as many decisions as simulations and relaxations take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit
from circinus.matching.admission_decision import Admission, add_admitted, admit
from circinus.matching.explanation.slo_relaxation import (
    changed_slos,
    confirmed_relaxation,
    relax_slo,
    smallest_relaxation,
    wide_relaxation,
    with_slos,
)
from circinus.matching.plan_estimates import PlanEstimates
from circinus.matching.plan_set import Advice, Assignment, Matching, Rejection
from circinus.matching.settings import MATCHING
from circinus.matching.simulation_check import (
    SimulationCheck,
    check_by_simulation,
    exclude_refuted,
    simulation_inputs,
)
from circinus.matching.startup_times import add_startup_times
from circinus.planning import Frontier, plan_query
from circinus.planning.frontier import MEASUREMENTS
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, QueryPlan, SloKind, Specification

_LATE = (SloKind.LATENCY,)


@dataclass(frozen=True)
class AdmissionPlanner:
    """Planner of one more query at a time beside running plans, which stay.

    A plan is decided on at its final sizes: the replicas, links and load that it will really have. Formulas decide, or
    a simulation of all plans together where formulas have caveats or miss a latency SLO narrowly. Candidates are the
    frontier's plans, plans on running deployments, those that a search at the final sizes finds, and plans that would
    be too slow at their utilization targets.
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
        plans = plans or PlanEstimates(specification, profiles, search=search)
        running = running_state(specification, matching, plans)
        return cls(specification, profiles, matching, search, plans, running)

    def with_matching(self, matching: Matching) -> AdmissionPlanner:
        """Return the planner for other running plans; estimates are shared."""
        running = running_state(self.specification, matching, self.plans)
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
        sized: Sequence[PlanCandidate] | None = None,
        explained: bool = True,
    ) -> tuple[Admission, Matching]:
        """Return the admission, and the matching with the query if it was admitted, else unchanged.

        Args:
            query: by name one of the specification's; its SLOs and risk may be others.
            frontier: the query's plans; None: they are searched for.
            neighbours: description of the running plans.
            short: whether short simulations suffice, of which bounds are more cautious, and reasons are not needed.
            max_simulations: maximum number of plans that are simulated.
            only: the one plan that is tried; None: all.
            sized: plans that a search at the final sizes found for the kind of query; None: it searches.
            explained: whether a rejection has all that its plans miss; otherwise `Admission.explained` has it.
        """
        self.check_time()
        plans = self.plans.with_query(query)
        running = self.running.with_reestimate(plans.reestimate)
        frontier = self._frontier(query, plans, short=short) if frontier is None else frontier
        unlisted: Sequence[PlanCandidate] = ()
        if only is not None:
            frontier = replace(frontier, candidates=())
        elif query.slos.latency is not None:
            late = plans.replan(_with_wider_limit(query), self.search).candidates
            if not short:  # what is shown of a plan is about the query's own limit
                late = tuple(plans.estimate_of(query.name, candidate.plan) for candidate in late)
            found = plans.sized_plans(query, running.load) if sized is None else sized
            unlisted = (*late, *(candidate.for_query(query.name) for candidate in found))
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
                extra_candidates=_extra_candidates(running, plans, frontier, unlisted, only),
                near_misses=() if short or only is not None else plans.without_excluded(_near_misses(frontier)),
                neighbours=neighbours,
                explained=not short,
                confirmed=confirmed,
            )
            admission = decide(doubtful=attempt <= max_simulations)
            if admission.rejection is not None or admission.fit is None or admission.assignment is None:
                if limited and attempt > max_simulations and admission.rejection is not None:
                    undecided = undecided or decide(doubtful=True).assignment is not None
                    admission = replace(admission, rejection=replace(admission.rejection, undecided=undecided))
                admission = replace(admission, simulations=simulations)
                return admission.explained if explained and not short else admission, self.matching
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
        return self.plans.with_query(query).replan(_with_wider_limit(query), self.search).candidates

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
        admitted, admitted_shortly = cache(self.admitted), cache(partial(self.admitted, short=True))
        relaxation = smallest_relaxation(query, admitted_shortly, nearest)
        if relaxation is None or len(changed_slos(query.slos, relaxation.slos)) > 1:
            relaxation = wide_relaxation(query, admitted) or relaxation
        changed = () if relaxation is None else changed_slos(query.slos, relaxation.slos)
        rejection = replace(rejection, relaxation=None, unrelaxable=len(changed) != 1 and bool(query.slos.by_kind))
        confirmed = None if relaxation is None else confirmed_relaxation(query, relaxation, admitted)
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


def _extra_candidates(
    running: AdmissionControl,
    plans: PlanEstimates,
    frontier: Frontier,
    unlisted: Sequence[PlanCandidate],
    only: QueryPlan | None,
) -> Sequence[PlanCandidate]:
    """Return plans besides the frontier's: on running deployments, unlisted ones, and near misses of the latency SLO.

    Unlisted plans are late at utilization targets, or were found at the final sizes. Without the late ones, the nearest
    plan would not be among those that are tried, and a relaxation could be tighter than the bound that the rejection
    states.
    """
    if only is not None:
        candidate = plans.running_plan(frontier.query, only)
        return [] if candidate is None else [candidate]
    composed = plans.on_deployments(frontier.query, running.deployments, any_latency=True)
    late = (miss.candidate for miss in frontier.near_misses if miss.violations == _LATE)
    return [*composed, *plans.without_excluded([*unlisted, *late])]


def _near_misses(frontier: Frontier) -> Iterable[PlanCandidate]:
    """Return the plans that miss SLOs at utilization targets, of a query with enough measurements."""
    if frontier.binding == (MEASUREMENTS,):
        return ()
    best = [] if frontier.best_effort is None else [frontier.best_effort.candidate]
    return {plan.plan: plan for plan in (*best, *(miss.candidate for miss in frontier.near_misses))}.values()


def _with_wider_limit(query: Query) -> Query:
    """Return the query with a latency limit for plans that may be fast enough at their final sizes."""
    if query.slos.latency is None:
        return query
    return with_slos(query, relax_slo(query.slos, SloKind.LATENCY, MATCHING.second_look_factor - 1))


def running_state(specification: Specification, matching: Matching, plans: PlanEstimates) -> AdmissionControl:
    """Prepare the served plans of a matching for the admission of one more query.

    Args:
        specification: with all served queries.
        matching: the running plans.
        plans: estimates of the specification's plans.

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
    )
