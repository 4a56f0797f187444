"""Admission of one more query while running plans stay: an assignment, or a rejection with binding resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.explanation.assignment_explanations import (
    CandidateComparison,
    alternatives,
    cheaper_failures,
    cost_difference,
    infeasible,
    tie,
)
from circinus.matching.explanation.rejections import explain_rejection
from circinus.matching.explanation.shadow_prices import ShadowPrice
from circinus.matching.explanation.slo_relaxation import Replan
from circinus.matching.plan_estimates import PlanEstimates, add_startup_times
from circinus.matching.plan_set import Assignment, Matching, Rejection, tenant_shares
from circinus.matching.problem import RESOURCES
from circinus.matching.settings import MATCHING
from circinus.matching.simulation_check import check_by_simulation, exclude_refuted, simulation_inputs
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier, ladder, plan_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Specification


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
    fit: tuple[AdmissionProblem, AdmissionFit] | None = None
    """Input of `add_admitted`."""


def admit_query(
    specification: Specification,
    profiles: Mapping[str, PipelineProfile],
    matching: Matching,
    name: str,
    *,
    search: SearchSettings = DEFAULT_SETTINGS,
) -> tuple[Admission, Matching]:
    """Plan one more query of a specification together with the running matching.

    If formulas are inaccurate for a new estimate, all plans are simulated together, which takes about a second; plans
    that make any query too slow in the simulation are excluded.

    Args:
        specification: with an infrastructure, the query, and all served queries.
        profiles: pipeline name -> profile, of all pipelines in use.
        matching: the running plans.
        name: the query, which the matching does not serve.
        search: settings of the plan search.

    Returns:
        The admission, and the matching with the query if it was admitted, else unchanged.

    Raises:
        PlanningError: no infrastructure, a missing profile, or a running plan without profile.
    """
    plans = PlanEstimates(specification, profiles, search.usable_link_share)
    running = running_state(specification, matching, plans, search.usable_link_share)
    infrastructure = specification.required_infrastructure
    network = Network(infrastructure)
    (query,) = [query for query in specification.queries if query.name == name]
    frontier = plan_query(query, specification.pipelines[query.pipeline], profiles[query.pipeline], network, search)
    replan = partial(plans.replan, search=search)
    for attempt in count(1):
        composed = plans.on_deployments(query, running.deployments)
        admission = admit(running, matching, frontier, extra_candidates=composed, replan=replan)
        if admission.assignment is None or admission.fit is None:
            return admission, matching
        admitted = add_admitted(running, matching, admission, specification.queries)
        planned = simulation_inputs(specification, profiles, admitted)
        check = check_by_simulation(admitted, planned, network, restrict_to={name, *admission.fit[1].affected_queries})
        if not check.violated:
            break
        refuted = admission.assignment.chosen
        plans.exclude(name, None if attempt >= MATCHING.max_simulated_plans else refuted.plan)
        frontier = exclude_refuted(frontier, refuted, check.violated, plans)
    deployments = add_startup_times(check.matching.deployments, profiles, infrastructure)
    admitted = plans.with_latest_starts(replace(check.matching, deployments=deployments))
    (assignment,) = [assignment for assignment in admitted.assignments if assignment.query == name]
    return replace(admission, assignment=assignment), admitted


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
    replan: Replan | None = None,
) -> Admission:
    """Give a query the plan that adds the least cost to the running plans, if any fits.

    A plan fits if capacities, packing on nodes, and the SLOs of the query and of all running queries hold at the new
    sizes.

    Args:
        running: the running plans, prepared by `running_state`.
        matching: the running plans.
        frontier: the query's plans.
        extra_candidates: further plans, composed of running deployments.
        replan: plans the query under relaxed SLOs, to find the smallest relaxation that admits it.
    """
    query, listed_plans = frontier.query, {candidate.plan for candidate in frontier.candidates}
    candidates = (
        *frontier.candidates,
        *(extra for extra in extra_candidates if extra.plan not in listed_plans),
    )
    prepared = running.prepare(query, candidates)
    failed: list[CandidateComparison] = []
    for position, outcome in running.try_candidates(prepared, query.slos):
        if isinstance(outcome, AdmissionFit):
            assignment = _assignment(prepared, position, outcome, frontier, failed)
            return Admission(query, assignment, fit=(prepared, outcome))
        failed.append(infeasible(candidates[position], outcome, cheaper=True))
    rejection = explain_rejection(running, frontier, failed, replan, neighbours="the running plans")
    prices = {price.resource: price for price in matching.prices}
    return Admission(query, None, rejection, tuple(prices[name] for name in rejection.binding if name in prices))


def _assignment(
    prepared: AdmissionProblem,
    position: int,
    fit: AdmissionFit,
    frontier: Frontier,
    failed: Sequence[CandidateComparison],
) -> Assignment:
    """Return the query's plan with its reason and alternatives."""
    candidates, added = prepared.problem.candidates, prepared.marginal_costs.added_usd_per_h
    untried = [other for other in prepared.cheapest_first if other != position][len(failed) :]
    compared = [
        cost_difference(candidates[other], extra, extra)
        if (extra := float(added[other] - added[position])) > EQUAL_USD_PER_H
        else tie(candidates[other], prepared.tie_key(other), prepared.tie_key(position))
        for other in untried
    ]
    merit = "its only plan" if len(candidates) == 1 else f"adds the lowest cost among its {len(candidates)} plans"
    return Assignment(
        query=frontier.query.name,
        chosen=fit.final,
        reason="; ".join((f"{merit} given the running plans", *cheaper_failures(failed))),
        alternatives=alternatives([*compared, *failed], frontier),
        ladder=ladder(frontier.query, frontier.plans, candidates[position]),
    )


def add_admitted(
    running: AdmissionControl, matching: Matching, admission: Admission, queries: Sequence[Query]
) -> Matching:
    """Return the matching with an admitted query; its bounds follow from those of the other queries.

    Args:
        running: the running plans, prepared by `running_state`.
        matching: the running plans.
        admission: of an admitted query.
        queries: the specification's, in the order of the new matching; queries that are neither served nor rejected in
            the matching are ignored.
    """
    assert admission.fit is not None
    assert admission.assignment is not None
    query, assignment, (prepared, fit) = admission.query, admission.assignment, admission.fit
    affected = running.affected_plans(fit)
    position = {item.name: index for index, item in enumerate(queries)}
    current = [replace(item, chosen=affected.get(item.query, item.chosen)) for item in matching.assignments]
    served = {query.name, *(item.query for item in matching.assignments)}
    reported = [item for item in queries if item.name in served or item.name in {r.query for r in matching.rejections}]
    total = sum(item.weight for item in reported)
    used = _used(prepared, fit)
    return replace(
        matching,
        assignments=tuple(sorted((*current, assignment), key=lambda item: position.get(item.query, len(position)))),
        rejections=tuple(rejection for rejection in matching.rejections if rejection.query != query.name),
        deployments=fit.deployments,
        satisfied_weight=sum(item.weight for item in reported if item.name in served),
        total_weight=total,
        cost_usd_per_h=fit.cost_usd_per_h,
        # Without the query, the result is a matching of the other queries, so their bounds apply.
        weight_bound=min(matching.weight_bound + query.weight, total),
        optimal=False,
        cost_bound_usd_per_h=min(matching.cost_bound_usd_per_h, fit.cost_usd_per_h),
        prices=tuple(replace(price, used=used.get(price.resource, price.used)) for price in matching.prices),
        tenants=tenant_shares(reported, served, running.infrastructure.tenants),
    )


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
