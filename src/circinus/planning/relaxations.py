"""Relaxations of single SLOs, and the reason of infeasibility, for a query without a plan."""

from __future__ import annotations

import numpy as np

from circinus.estimation import PlanCandidate
from circinus.estimation.percentiles import UNBOUNDED
from circinus.planning.frontier import SingleRelaxation
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.pool_eligibility import (
    explain_ineligible_pools,
    explain_missing_capacity,
    explain_operator_ineligible,
)
from circinus.planning.query_search import QuerySearch
from circinus.specification import Network, Slo, SloKind
from circinus.specification.formatting import UNBOUNDED_S, format_score


def single_relaxations(search: QuerySearch, without_cost: PlanArrays) -> tuple[SingleRelaxation, ...]:
    """Return, for each SLO that alone prevents a plan, the tightest limit at which there is one."""
    relaxations = []
    for kind, slo in search.query.slos.by_kind.items():
        candidate = _plan_without(search, kind, without_cost)
        if candidate is not None:
            relaxations.append(SingleRelaxation(kind, candidate.estimate.compared_value(slo), candidate))
    return tuple(relaxations)


def explain_infeasible(search: QuerySearch, network: Network, relaxations: tuple[SingleRelaxation, ...]) -> str:
    """Return the reason why a query has no plan even with the whole infrastructure to itself."""
    query = search.query
    if not search.space.columns.pools:
        return f"no pool is open to queries from site {query.source}: {explain_ineligible_pools(query, network)}"
    for rows, table in zip(search.arrays.operators, search.space.options, strict=True):
        pool = query.pinned_pool(rows.spec.name)
        if not table.usable.any() and pool is not None:
            return f"operator {rows.spec.name} is pinned to pool {pool} but does not fit in it at the query's rate"
        if not table.usable.any():
            return f"operator {rows.spec.name} fits in no pool: {explain_operator_ineligible(rows, query, network)}"
    too_few_items = _too_few_items(search)
    if too_few_items:
        return too_few_items
    if relaxations:
        slos = query.slos.by_kind
        changes = ", or ".join(_describe_relaxation(slos[relaxation.slo], relaxation) for relaxation in relaxations)
        shared = "" if query.slos.cost is None else " and fully shared deployments"
        text = f"no plan meets all SLOs; with the infrastructure to itself{shared}, the query needs {changes}"
        return text + (_measurement_hint(search) if any(r.slo is SloKind.ACCURACY for r in relaxations) else "")
    if not search.fits():
        missing_capacity = explain_missing_capacity(search.space)
        text = "no plan fits in the pools and links that are open to the query, even with the infrastructure to itself"
        return f"{text}: {missing_capacity}" if missing_capacity else text
    text = "no plan meets all SLOs even with the infrastructure to itself, and relaxing a single SLO does not suffice"
    fastest = search.fastest(search.accurate) if query.slos.latency is not None else None
    if fastest is not None and fastest.estimate.latency_s.upper >= UNBOUNDED_S:
        max_items = max(len(c.items) for c in search.arrays.configurations)
        text += (
            f"; service times or sizes of {max_items} items vary so much that replicas or links may be overloaded: "
            "add items to the data set, or raise the query's risk"
        )
    return text + ("" if len(search.accurate) else _measurement_hint(search))


def _measurement_hint(search: QuerySearch) -> str:
    """Return a hint to measure more, if some configurations may or may not meet the accuracy SLO."""
    slo = search.query.slos.accuracy
    if slo is None:
        return ""
    bounds = [c.accuracy for c in search.arrays.configurations]
    count = sum(slo.is_met_by(b.lower) != slo.is_met_by(b.upper) for b in bounds)
    if not count:
        return ""
    undecided = "1 configuration" if count == 1 else f"{count} configurations"
    return f"; {undecided} with few measured items may still meet accuracy {slo}: run `circinus profile` first"


def _too_few_items(search: QuerySearch) -> str:
    """Return the reason why the query's percentile has no bound at its risk, or an empty string if it has one."""
    latency, max_items = search.query.slos.latency, max(len(c.items) for c in search.arrays.configurations)
    if latency is None or search.space.percentile.allowance.of(np.ones(max_items)) < UNBOUNDED:
        return ""
    return (
        f"p{latency.percentile:g} has no bound at a risk of {search.query.risk:g} from {max_items} items: "
        "add items to the data set, or raise the query's risk"
    )


def _plan_without(search: QuerySearch, kind: SloKind, without_cost: PlanArrays) -> PlanCandidate | None:
    """Return the plan that violates one SLO the least and meets the others, or None."""
    if kind is SloKind.LATENCY:
        candidate = search.fastest(search.accurate)
        return None if candidate is None or candidate.estimate.latency_s.upper >= UNBOUNDED_S else candidate
    if kind is SloKind.COST:
        return search.cheapest_of(without_cost, search.space.columns.shared_cost) if without_cost.count else None
    for configuration in np.argsort(search.shortfall, kind="stable"):
        if search.shortfall[configuration] <= 0 or search.violation[configuration] > 0:
            continue
        candidate = search.min_usage_plan(int(configuration), search.space.columns.dedicated_cost, cost=True)
        if candidate is not None:
            return candidate
    return None


def _describe_relaxation(slo: Slo, relaxation: SingleRelaxation) -> str:
    """Return the relaxed SLO, rounded to the side on which the plan meets it, and the current limit."""
    text = f"{slo.kind} {slo.comparison_text} {slo.relaxed_to(relaxation.limit).limit_text}"
    mean = relaxation.candidate.estimate.accuracy.value
    if slo.kind is SloKind.ACCURACY and mean != relaxation.limit:
        text += f" (measured mean {format_score(mean)})"
    return f"{text} instead of {slo.limit_text}"
