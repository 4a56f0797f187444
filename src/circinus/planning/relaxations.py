"""For a query without a plan: how far each objective alone would have to give way."""

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
    """For each objective that alone stands in the way, the tightest limit under which there is a plan.

    Args:
        search: of a query without a plan.
        without_cost: the cheapest plans when there is no cost objective.
    """
    slos = search.query.slos
    found = [
        _relaxed_latency(search) if slos.latency is not None else None,
        _relaxed_accuracy(search) if slos.accuracy is not None else None,
        _relaxed_cost(search, without_cost) if slos.cost is not None else None,
    ]
    return tuple(relaxation for relaxation in found if relaxation is not None)


def explain_infeasible(search: QuerySearch, network: Network, relaxations: tuple[SingleRelaxation, ...]) -> str:
    """Why a query has no plan even with the whole infrastructure to itself, in words."""
    query = search.query
    if not search.space.columns.pools:
        return f"no pool is open to a query from site {query.source}: {explain_ineligible_pools(query, network)}"
    for rows, table in zip(search.arrays.operators, search.space.options, strict=True):
        pool = query.pinned_pool(rows.spec.name)
        if not table.usable.any() and pool is not None:
            return f"operator {rows.spec.name} does not fit in pool {pool}, which it is pinned to, at the query's rate"
        if not table.usable.any():
            return f"operator {rows.spec.name} fits in no pool: {explain_operator_ineligible(rows, query, network)}"
    too_few = _too_few_items(search)
    if too_few:
        return too_few
    if relaxations:
        changes = ", or with ".join(_in_words(query.slos, relaxation) for relaxation in relaxations)
        shared = "" if query.slos.cost is None else " and its deployments shared to the full"
        words = f"no plan keeps all objectives; with the infrastructure to itself{shared}, one would do with {changes}"
        return words + (_not_known_well(search) if any(r.slo == "accuracy" for r in relaxations) else "")
    if not search.fits():
        lacking = explain_missing_capacity(search.space)
        words = "no plan fits in the pools and links that are open to the query, not even alone"
        return f"{words}: {lacking}" if lacking else words
    words = "no plan keeps all objectives, and no single one that gives way would suffice, not even alone"
    fastest = search.fastest(search.accurate) if query.slos.latency is not None else None
    if fastest is not None and fastest.estimate.latency_s.upper >= UNBOUNDED_S:
        most = max(len(c.items) for c in search.arrays.configurations)
        words += (
            f"; times or sizes of {most} items vary so much that replicas or links may be busy all the time: give the "
            "data set more items, or raise the query's risk"
        )
    return words + ("" if len(search.accurate) else _not_known_well(search))


def _not_known_well(search: QuerySearch) -> str:
    """That more measurements may help, where configurations may keep the accuracy objective or not."""
    slo = search.query.slos.accuracy
    if slo is None:
        return ""
    bounds = [c.accuracy for c in search.arrays.configurations]
    count = sum(slo.is_met_by(b.lower) != slo.is_met_by(b.upper) for b in bounds)
    if not count:
        return ""
    which = "1 configuration" if count == 1 else f"{count} configurations"
    return f"; but {which} measured on few items may keep accuracy {slo}: profile first (circinus profile)"


def _too_few_items(search: QuerySearch) -> str:
    """Why nothing can be promised at the query's percentile and risk, where the items are too few for any bound."""
    latency, most = search.query.slos.latency, max(len(c.items) for c in search.arrays.configurations)
    if latency is None or search.space.percentile.allowance.of(np.ones(most)) < UNBOUNDED:
        return ""
    return (
        f"p{latency.percentile:g} cannot be bounded at a risk of {search.query.risk:g} from {most} items; give the "
        "data set more items, or raise the query's risk"
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
        candidate = search.least(int(configuration), search.space.columns.alone_cost, cost=True)
        if candidate is not None:
            accuracy = candidate.estimate.accuracy
            return SingleRelaxation("accuracy", accuracy.lower if slo.comparison == ">=" else accuracy.upper, candidate)
    return None


def _relaxed_cost(search: QuerySearch, without_cost: PlanArrays) -> SingleRelaxation | None:
    if not without_cost.count:
        return None
    candidate = search.cheapest_of(without_cost, search.space.columns.shared_cost)
    return SingleRelaxation("cost", candidate.estimate.cost_usd_per_h.lower, candidate)


def _in_words(slos: Slos, relaxation: SingleRelaxation) -> str:
    """The objective as it would have to be, rounded to the side on which the plan keeps it, and as it is."""
    limit = relaxation.limit
    if relaxation.slo == "latency" and slos.latency is not None:
        given = DURATION.format(slos.latency.limit_s)
        proposed = format_latency_limit(ceil_significant(limit))
        return f"latency p{slos.latency.percentile:g} <= {proposed} instead of {given}"
    if relaxation.slo == "accuracy" and slos.accuracy is not None:
        comparison, threshold = slos.accuracy.comparison, slos.accuracy.threshold
        wide = f"{(floor_significant if comparison == '>=' else ceil_significant)(limit):g}"
        found = relaxation.candidate.estimate.accuracy.value
        measured = "" if found == limit else f" ({format_score(found)} as far as it was measured)"
        return f"accuracy {comparison} {wide}{measured} instead of {threshold:g}"
    assert slos.cost is not None
    wide = PRICE_PER_H.format(ceil_significant(limit))
    return f"cost <= {wide} instead of {PRICE_PER_H.format(slos.cost.limit_usd_per_h)}"
