"""Admission of one more query while running plans stay: an assignment, or a rejection with binding resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.explanation.assignment_explanations import MAX_ALTERNATIVES
from circinus.matching.explanation.rejections import binding_slos
from circinus.matching.explanation.shadow_prices import ShadowPrice
from circinus.matching.explanation.slo_relaxation import Replan, smallest_relaxation
from circinus.matching.feasibility import Infeasibility
from circinus.matching.plan_estimates import PlanEstimates, add_startup_times
from circinus.matching.plan_set import Alternative, Assignment, Matching, Rejection, tenant_shares
from circinus.matching.problem import RESOURCES
from circinus.matching.simulation_check import (
    MAX_ATTEMPTS,
    check_by_simulation,
    exclude_refuted,
    simulation_inputs,
)
from circinus.matching.tolerances import EQUAL_USD_PER_H
from circinus.planning import Frontier, ladder, plan_query
from circinus.planning.settings import DEFAULT_SETTINGS, SearchSettings
from circinus.profiling import PipelineProfile
from circinus.specification import Network, Query, Specification
from circinus.specification.formatting import format_usd_per_h


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
    pipeline, profile = specification.pipelines[query.pipeline], profiles[query.pipeline]
    unexplained = replace(search, near_misses=0, max_margin_plans=0)
    frontier = plan_query(query, pipeline, profile, network, search)

    def replan(relaxed: Query) -> Frontier:
        replanned = plan_query(relaxed, pipeline, profile, network, unexplained)
        return replace(replanned, candidates=plans.without_excluded(replanned.candidates))

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
        plans.exclude(name, None if attempt >= MAX_ATTEMPTS else refuted.plan)
        frontier = exclude_refuted(frontier, refuted, check.violated, plans)
    deployments = add_startup_times(check.matching.deployments, profiles, infrastructure)
    (assignment,) = [assignment for assignment in check.matching.assignments if assignment.query == name]
    return replace(admission, assignment=assignment), replace(check.matching, deployments=deployments)


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
        {assignment.query: assignment.chosen.estimate.latency_s.upper for assignment in matching.assignments},
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
    if not candidates:
        rejection = Rejection(
            query=query.name,
            reason=frontier.reason,
            binding=binding_slos(frontier),
            relaxation=smallest_relaxation(running, frontier, replan),
            best_so_far=frontier.best_effort,
        )
        return Admission(query, rejection=rejection)
    prepared = running.prepare(query, candidates)
    obstacles: dict[int, Infeasibility] = {}
    for candidate in prepared.cheapest_first:
        fit = running.try_candidate(prepared, candidate, query.slos)
        if isinstance(fit, AdmissionFit):
            assignment = _assignment(prepared, candidate, fit, frontier, obstacles)
            return Admission(query, assignment, fit=(prepared, fit))
        obstacles[candidate] = fit
    for candidate in np.flatnonzero(~prepared.marginal_costs.fits).tolist():
        fit = running.try_candidate(prepared, candidate, query.slos)
        assert isinstance(fit, Infeasibility)
        obstacles[candidate] = fit
    nearest = sorted(obstacles.items(), key=lambda entry: entry[1].excess)
    closest = nearest[0][1]
    subject = "its only plan" if len(candidates) == 1 else f"the nearest of its {len(candidates)} plans"
    reason = closest.reason if closest.reason.startswith("needs") else f"fails: {closest.reason}"
    rejection = Rejection(
        query=query.name,
        reason=f"none of its plans fits with the running plans: {subject} {reason}",
        binding=closest.binding,
        relaxation=smallest_relaxation(running, frontier, replan),
        alternatives=tuple(
            Alternative(candidates[candidate].plan, candidates[candidate].estimate, obstacle.reason)
            for candidate, obstacle in nearest[:MAX_ALTERNATIVES]
        ),
    )
    prices = {price.resource: price for price in matching.prices}
    return Admission(query, None, rejection, tuple(prices[name] for name in closest.binding if name in prices))


def _assignment(
    prepared: AdmissionProblem,
    candidate: int,
    fit: AdmissionFit,
    frontier: Frontier,
    failed: Mapping[int, Infeasibility],
) -> Assignment:
    """Return the query's plan with its reason and alternatives."""
    candidates, added = prepared.problem.candidates, prepared.marginal_costs.added_usd_per_h
    alternatives = [(other, obstacle.reason) for other, obstacle in failed.items()]
    for other in prepared.cheapest_first:
        extra = float(added[other] - added[candidate])
        if other != candidate and other not in failed:
            alternatives.append(
                (
                    other,
                    "costs the same" if extra <= EQUAL_USD_PER_H else f"costs {format_usd_per_h(extra)} more in total",
                )
            )
    merit = "its only plan" if len(candidates) == 1 else f"adds the lowest cost among its {len(candidates)} plans"
    reasons = [f"{merit} given the running plans"]
    if failed:
        reasons.append(
            f"the nearest of {len(failed)} plans that would add less cost fails: {next(iter(failed.values())).reason}"
        )
    return Assignment(
        query=frontier.query.name,
        chosen=fit.final,
        reason="; ".join(reasons),
        alternatives=tuple(
            Alternative(candidates[other].plan, candidates[other].estimate, reason)
            for other, reason in alternatives[:MAX_ALTERNATIVES]
        ),
        ladder=ladder(frontier.query, frontier.plans, candidates[candidate]),
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
