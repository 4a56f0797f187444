"""For a query without a plan: how far each objective alone would have to give way."""

from __future__ import annotations

import numpy as np

from circinus.planning.frontier import SingleRelaxation
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.query_search import QuerySearch
from circinus.planning.wording import duration


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


def why_none(search: QuerySearch, relaxations: tuple[SingleRelaxation, ...]) -> str:
    """Why a query has no plan, in words."""
    if not search.space.columns.pools:
        return f"no pool is open to a query from site {search.query.source}"
    for operator, table in zip(search.arrays.order, search.space.options, strict=True):
        if not table.usable.any():
            return f"operator {operator.name} fits in no pool that is open to the query and allowed for it"
    if relaxations:
        return "no plan keeps all objectives; one would do if " + ", or if ".join(
            _in_words(search, relaxation) for relaxation in relaxations
        )
    if not search.fits():
        return "no plan fits in the pools and links that are open to the query"
    return "no plan keeps all objectives, and no single one that gives way would suffice"


def _relaxed_latency(search: QuerySearch) -> SingleRelaxation | None:
    candidate = search.fastest(search.accurate)
    if candidate is None:
        return None
    return SingleRelaxation("latency", candidate.estimate.latency_s.upper, candidate)


def _relaxed_accuracy(search: QuerySearch) -> SingleRelaxation | None:
    slo = search.query.slos.accuracy
    assert slo is not None
    for configuration in np.argsort(search.shortfall, kind="stable"):
        if search.shortfall[configuration] <= 0 or search.excess[configuration] > 0:
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


def _in_words(search: QuerySearch, relaxation: SingleRelaxation) -> str:
    slos, limit = search.query.slos, relaxation.limit
    if relaxation.slo == "latency" and slos.latency is not None:
        return f"p{slos.latency.percentile:g} were {duration(limit)} instead of {duration(slos.latency.limit_s)}"
    if relaxation.slo == "accuracy" and slos.accuracy is not None:
        return f"accuracy were {limit:.3g} instead of {slos.accuracy.threshold:g}"
    assert slos.cost is not None
    return f"cost were ${limit:.3g}/h instead of ${slos.cost.limit_usd_per_h:.3g}/h"
