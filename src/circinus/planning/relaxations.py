"""Relaxations of single SLOs, and the reason of infeasibility, for a query without a plan."""

from __future__ import annotations

import numpy as np

from circinus.estimation.percentiles import UNBOUNDED
from circinus.planning.frontier import SingleRelaxation
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.pool_eligibility import (
    explain_ineligible_pools,
    explain_missing_capacity,
    explain_operator_ineligible,
)
from circinus.planning.query_search import QuerySearch
from circinus.specification import Network, Slos
from circinus.specification.formatting import (
    UNBOUNDED_S,
    ceil_significant,
    floor_significant,
    format_latency_limit,
    format_score,
)
from circinus.specification.units import DURATION, PRICE_PER_H


def single_relaxations(search: QuerySearch, without_cost: PlanArrays) -> tuple[SingleRelaxation, ...]:
    """Return, for each SLO that alone prevents a plan, the tightest limit at which there is one.

    Args:
        search: search of a query without a plan.
        without_cost: cheapest plans if the cost SLO is ignored.
    """
    slos = search.query.slos
    relaxations = [
        _relaxed_latency(search) if slos.latency is not None else None,
        _relaxed_accuracy(search) if slos.accuracy is not None else None,
        _relaxed_cost(search, without_cost) if slos.cost is not None else None,
    ]
    return tuple(relaxation for relaxation in relaxations if relaxation is not None)


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
        changes = ", or ".join(_describe_relaxation(query.slos, relaxation) for relaxation in relaxations)
        shared = "" if query.slos.cost is None else " and fully shared deployments"
        text = f"no plan meets all SLOs; with the infrastructure to itself{shared}, the query needs {changes}"
        return text + (_measurement_hint(search) if any(r.slo == "accuracy" for r in relaxations) else "")
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


def _relaxed_latency(search: QuerySearch) -> SingleRelaxation | None:
    candidate = search.fastest(search.accurate)
    if candidate is None or candidate.estimate.latency_s.upper >= UNBOUNDED_S:
        return None
    return SingleRelaxation("latency", candidate.estimate.latency_s.upper, candidate)


def _relaxed_accuracy(search: QuerySearch) -> SingleRelaxation | None:
    slo = search.query.slos.accuracy
    assert slo is not None
    for configuration in np.argsort(search.shortfall, kind="stable"):
        if search.shortfall[configuration] <= 0 or search.violation[configuration] > 0:
            continue
        candidate = search.min_usage_plan(int(configuration), search.space.columns.dedicated_cost, cost=True)
        if candidate is not None:
            accuracy = candidate.estimate.accuracy
            return SingleRelaxation("accuracy", accuracy.lower if slo.comparison == ">=" else accuracy.upper, candidate)
    return None


def _relaxed_cost(search: QuerySearch, without_cost: PlanArrays) -> SingleRelaxation | None:
    if not without_cost.count:
        return None
    candidate = search.cheapest_of(without_cost, search.space.columns.shared_cost)
    return SingleRelaxation("cost", candidate.estimate.cost_usd_per_h.lower, candidate)


def _describe_relaxation(slos: Slos, relaxation: SingleRelaxation) -> str:
    """Return the relaxed SLO, rounded to the side on which the plan meets it, and the current SLO."""
    limit = relaxation.limit
    if relaxation.slo == "latency" and slos.latency is not None:
        given = DURATION.format(slos.latency.limit_s)
        proposed = format_latency_limit(ceil_significant(limit))
        return f"latency p{slos.latency.percentile:g} <= {proposed} instead of {given}"
    if relaxation.slo == "accuracy" and slos.accuracy is not None:
        comparison, threshold = slos.accuracy.comparison, slos.accuracy.threshold
        proposed = f"{(floor_significant if comparison == '>=' else ceil_significant)(limit):g}"
        mean = relaxation.candidate.estimate.accuracy.value
        measured = "" if mean == limit else f" (measured mean {format_score(mean)})"
        return f"accuracy {comparison} {proposed}{measured} instead of {threshold:g}"
    assert slos.cost is not None
    proposed = PRICE_PER_H.format(ceil_significant(limit))
    return f"cost <= {proposed} instead of {PRICE_PER_H.format(slos.cost.limit_usd_per_h)}"
