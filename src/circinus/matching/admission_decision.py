"""Decision on one more query beside running plans: the plan that adds the least cost, or a rejection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from circinus.estimation import PlanCandidate
from circinus.matching.admission_control import AdmissionControl, AdmissionFit, AdmissionProblem
from circinus.matching.explanation.assignment_explanations import confirmed_shortages, explain_admission
from circinus.matching.explanation.candidate_comparisons import CandidateComparison, infeasible
from circinus.matching.explanation.rejections import explain_rejection
from circinus.matching.feasibility import Infeasibility
from circinus.matching.plan_set import Assignment, Matching, Rejection, ShadowPrice, with_weights
from circinus.matching.problem import RESOURCES
from circinus.planning import Frontier
from circinus.specification import Query


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
    explain: Callable[[], Admission] | None = None
    """Returns the rejection with the SLOs that plans without enough room miss, too, in some tens of trials."""

    @property
    def explained(self) -> Admission:
        """The admission, its rejection with all that its plans miss."""
        if self.explain is None or self.rejection is None:
            return self
        explained = self.explain()
        assert explained.rejection is not None
        rejection = replace(explained.rejection, undecided=self.rejection.undecided)
        return replace(explained, rejection=rejection, simulations=self.simulations)


def admit(
    running: AdmissionControl,
    matching: Matching,
    frontier: Frontier,
    *,
    extra_candidates: Sequence[PlanCandidate] = (),
    near_misses: Sequence[PlanCandidate] = (),
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
        near_misses: plans that miss SLOs at any size, of which a rejection says what else they miss as sized.
        neighbours: description of the running plans.
        doubtful: whether to return the plan nearest to the latency SLO, with `AdmissionFit.unconfirmed` queries, if no
            plan meets all SLOs by formula.
        confirmed: such a plan, as a simulation confirmed it; returned unless `doubtful` and there are cheaper ones.
        explained: whether to try as sized the plans that are shown besides.
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
    if near_misses:
        offered = {candidate.plan for candidate in candidates}
        prepared = running.prepare(query, (*candidates, *(plan for plan in near_misses if plan.plan not in offered)))
        for position in range(len(candidates), len(prepared.problem.candidates)):
            outcome = running.try_candidate(prepared, position, query.slos)
            if isinstance(outcome, Infeasibility):
                failed[position] = infeasible(prepared.problem.candidates[position], outcome)
    prices = {price.resource: price for price in matching.prices}

    def rejected(compared: Sequence[CandidateComparison]) -> Admission:
        rejection = explain_rejection(frontier, compared, neighbours=neighbours)
        return Admission(query, None, rejection, tuple(prices[name] for name in rejection.binding if name in prices))

    @cache
    def explain() -> Admission:
        return rejected(confirmed_shortages(running, prepared, query.slos, failed))

    return replace(rejected(tuple(failed.values())), explain=explain)


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
        nodes=fit.nodes,
        cost_usd_per_h=fit.cost_usd_per_h,
        optimal=False,
        cost_at_targets_usd_per_h=None,
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
