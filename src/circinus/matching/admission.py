"""One more query beside what runs: let in with a plan, or refused with what binds; nobody else's plan is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.explanation.assignment_explanations import MOST_ALTERNATIVES, SAME_COST
from circinus.matching.explanation.feasibility import Infeasibility
from circinus.matching.explanation.rejections import binding_slos
from circinus.matching.explanation.shadow_prices import ShadowPrice
from circinus.matching.explanation.slo_relaxation import Replan, RunningQueryFitter, smallest_relaxation
from circinus.matching.plan_estimates import PlanEstimates, add_startup_times
from circinus.matching.plan_set import Alternative, Assignment, Matching, Rejection, tenant_shares
from circinus.matching.problem import RESOURCES
from circinus.matching.simulation_check import MOST_PLANS, check_by_simulation, exclude_refuted, simulation_inputs
from circinus.planning import Frontier, ladder, plan_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Specification
from circinus.specification.formatting import format_usd_per_h


@dataclass(frozen=True)
class Admission:
    """The answer for one more query: either an assignment or a rejection."""

    query: Query
    assignment: Assignment | None = None
    """The plan that it gets."""
    rejection: Rejection | None = None
    """Why it was refused."""
    binding: tuple[ShadowPrice, ...] = ()
    """Of the resources that stand in its way: what one more unit is worth to all that were matched."""
    fit: tuple[AdmissionProblem, AdmissionFit] | None = None
    """What `with_admitted` makes the new matching from."""


def admit_query(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    matching: Matching,
    name: str,
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
) -> tuple[Admission, Matching]:
    """Plan one more query of a specification beside what a matching serves of it.

    Where formulas are not good for an estimate that is new, all are simulated together, which takes about a second;
    plans beside which somebody is too slow there are not taken.

    Args:
        specification: with an infrastructure, the query, and all that are served.
        profiles: pipeline name -> what was measured of it; of all that are in use.
        matching: what runs.
        name: the query, which the matching does not serve.
        search: how plans were searched.

    Returns:
        The answer, and the matching with the query where it is let in, else as it was.

    Raises:
        PlanningError: no infrastructure, a profile is missing, or one that runs is not known any more.
    """
    plans = PlanEstimates(specification, profiles, search.usable_link_share)
    running = running_state(specification, matching, plans, search.usable_link_share)
    assert specification.infrastructure is not None  # `ProfiledPlans` has refused a specification without one
    network = Network(specification.infrastructure)
    (query,) = [query for query in specification.queries if query.name == name]
    pipeline, profile = specification.pipelines[query.pipeline], profiles[query.pipeline]
    unexplained = replace(search, near_misses=0, max_margin_plans=0)
    frontier = plan_query(query, pipeline, profile, network, search)

    def replan(relaxed: Query) -> Frontier:
        wider = plan_query(relaxed, pipeline, profile, network, unexplained)
        return replace(wider, candidates=plans.without_excluded(wider.candidates))

    for attempt in count(1):
        further = plans.on_deployments(query, running.deployments)
        admission = admit(running, matching, frontier, extra_candidates=further, replan=replan)
        if admission.assignment is None or admission.fit is None:
            return admission, matching
        wider = add_admitted(running, matching, admission, specification.queries)
        planned = simulation_inputs(specification, profiles, wider)
        found = check_by_simulation(wider, planned, network, only={name, *admission.fit[1].affected_queries})
        if not found.violated:
            break
        tried = admission.assignment.chosen
        plans.exclude(name, None if attempt >= MOST_PLANS else tried.plan)
        frontier = exclude_refuted(frontier, tried, found.violated, plans)
    deployments = add_startup_times(found.matching.deployments, profiles, specification.infrastructure)
    (assignment,) = [one for one in found.matching.assignments if one.query == name]
    return replace(admission, assignment=assignment), replace(found.matching, deployments=deployments)


def running_state(
    specification: Specification, matching: Matching, plans: PlanEstimates, usable_link_share: float
) -> AdmissionControl:
    """What a matching serves, prepared for one more query.

    Args:
        specification: with all queries that are served.
        matching: what runs.
        plans: estimates of the specification's plans.
        usable_link_share: as the matching was made with.

    Raises:
        PlanningError: a plan that runs has no profile any more.
    """
    served = {assignment.query: assignment.chosen.plan for assignment in matching.assignments}
    assert specification.infrastructure is not None  # `ProfiledPlans` has refused a specification without one
    return AdmissionControl(
        [query for query in specification.queries if query.name in served],
        {name: plans.estimate_of(name, plan) for name, plan in served.items()},
        matching.deployments,
        specification.infrastructure,
        plans.reestimate,
        usable_link_share,
        {found.query: found.chosen.estimate.latency_s.upper for found in matching.assignments},
    )


def admit(
    running: AdmissionControl,
    matching: Matching,
    frontier: Frontier,
    *,
    extra_candidates: Sequence[PlanCandidate] = (),
    replan: Replan | None = None,
) -> Admission:
    """Give a query the plan that adds the least cost beside what runs, if there is any that fits.

    What fits is really fitted: capacities, nodes, the query's objectives, and those of all others as sized then.

    Args:
        running: what the matching serves, as `beside_matching` makes it.
        matching: what runs.
        frontier: the query's plans.
        extra_candidates: more of its plans, as composed of deployments that run.
        replan: how the query is planned under relaxed objectives, for what would let it in.
    """
    query, known = frontier.query, {candidate.plan for candidate in frontier.candidates}
    candidates = (*frontier.candidates, *(one for one in extra_candidates if one.plan not in known))
    if not candidates:
        rejection = Rejection(
            query=query.name,
            reason=frontier.reason,
            binding=binding_slos(frontier),
            relaxation=smallest_relaxation(RunningQueryFitter(running, query), frontier, replan),
            best_so_far=frontier.best_effort,
        )
        return Admission(query, rejection=rejection)
    laid = running.prepare(query, candidates)
    obstacles: dict[int, Infeasibility] = {}
    for candidate in laid.cheapest_first:
        found = running.try_candidate(laid, candidate, query.slos)
        if isinstance(found, AdmissionFit):
            assignment = _assignment(laid, candidate, found, frontier, obstacles)
            return Admission(query, assignment, fit=(laid, found))
        obstacles[candidate] = found
    for candidate in np.flatnonzero(~laid.marginal_costs.fits).tolist():
        found = running.try_candidate(laid, candidate, query.slos)
        assert isinstance(found, Infeasibility)
        obstacles[candidate] = found
    nearest = sorted(obstacles.items(), key=lambda entry: entry[1].excess)
    first = nearest[0][1]
    which = "its only plan" if len(candidates) == 1 else f"the nearest of its {len(candidates)} plans"
    reason = first.reason if first.reason.startswith("needs") else f"fails: {first.reason}"
    rejection = Rejection(
        query=query.name,
        reason=f"none of its plans fits beside those that run: {which} {reason}",
        binding=first.binding,
        relaxation=smallest_relaxation(RunningQueryFitter(running, query), frontier, replan),
        alternatives=tuple(
            Alternative(candidates[candidate].plan, candidates[candidate].estimate, obstacle.reason)
            for candidate, obstacle in nearest[:MOST_ALTERNATIVES]
        ),
    )
    prices = {price.resource: price for price in matching.prices}
    return Admission(query, None, rejection, tuple(prices[name] for name in first.binding if name in prices))


def _assignment(
    laid: AdmissionProblem, candidate: int, found: AdmissionFit, frontier: Frontier, failed: Mapping[int, Infeasibility]
) -> Assignment:
    """The query's plan, why it got it, and what else there was."""
    candidates, added = laid.problem.candidates, laid.marginal_costs.added_usd_per_h
    others = [(one, obstacle.reason) for one, obstacle in failed.items()]
    for one in laid.cheapest_first:
        more = float(added[one] - added[candidate])
        if one != candidate and one not in failed:
            others.append(
                (one, "costs the same" if more <= SAME_COST else f"costs {format_usd_per_h(more)} more in total")
            )
    which = "its only plan" if len(candidates) == 1 else f"adds the least cost of its {len(candidates)} plans"
    words = [f"{which} beside those that run"]
    if failed:
        words.append(
            f"the nearest of {len(failed)} plans that would add less fails: {next(iter(failed.values())).reason}"
        )
    return Assignment(
        query=frontier.query.name,
        chosen=found.final,
        reason="; ".join(words),
        alternatives=tuple(
            Alternative(candidates[one].plan, candidates[one].estimate, reason)
            for one, reason in others[:MOST_ALTERNATIVES]
        ),
        ladder=ladder(frontier.query, frontier.plans, candidates[candidate]),
    )


def add_admitted(
    running: AdmissionControl, matching: Matching, admission: Admission, queries: Sequence[Query]
) -> Matching:
    """The matching with a query that was let in. What was proved of the others bounds all.

    Args:
        running: what the matching serves.
        matching: what runs.
        admission: of a query that was let in beside it.
        queries: the specification's, in the order in which the new matching is to list them; those that the matching
            knows nothing of still wait.
    """
    assert admission.fit is not None
    assert admission.assignment is not None
    query, assignment, (laid, found) = admission.query, admission.assignment, admission.fit
    touched = running.affected_plans(found)
    place = {one.name: number for number, one in enumerate(queries)}
    stay = [replace(one, chosen=touched.get(one.query, one.chosen)) for one in matching.assignments]
    serving = {query.name, *(one.query for one in matching.assignments)}
    listed = [one for one in queries if one.name in serving or one.name in {r.query for r in matching.rejections}]
    total = sum(one.weight for one in listed)
    used = _used(laid, found)
    return replace(
        matching,
        assignments=tuple(sorted((*stay, assignment), key=lambda one: place.get(one.query, len(place)))),
        rejections=tuple(rejection for rejection in matching.rejections if rejection.query != query.name),
        deployments=found.deployments,
        satisfied_weight=sum(one.weight for one in listed if one.name in serving),
        total_weight=total,
        cost_usd_per_h=found.cost_usd_per_h,
        # Without the query it would be a matching of the others: of no more weight and no less cost than was proved.
        weight_bound=min(matching.weight_bound + query.weight, total),
        optimal=False,
        cost_bound_usd_per_h=min(matching.cost_bound_usd_per_h, found.cost_usd_per_h),
        prices=tuple(replace(price, used=used.get(price.resource, price.used)) for price in matching.prices),
        tenants=tenant_shares(listed, serving, running.infrastructure.tenants),
    )


def _used(laid: AdmissionProblem, found: AdmissionFit) -> dict[str, float]:
    """Resource -> share of its capacity that is taken."""
    problem, rows = laid.problem, laid.problem.rows
    used = {
        f"pool {problem.pools[rows.pool[row]]}: {RESOURCES[rows.resource[row]]}": float(found.rows[row] / limit)
        for row, limit in enumerate(rows.limit)
        if rows.plain[row]
    }
    taken = found.traffic_bytes_per_s / problem.link_capacity_bytes_per_s
    return used | {f"link {name}": float(share) for name, share in zip(problem.links, taken, strict=True)}
