"""The best plans that are not promised to meet the objectives, for explaining what was chosen."""

from __future__ import annotations

import numpy as np

from circinus.estimation import Estimate, PlanCandidate
from circinus.planning.frontier import BestEffortPlan, NearMiss, SloName
from circinus.planning.plan_arrays import PlanArrays
from circinus.planning.query_search import QuerySearch
from circinus.profiling import Interval
from circinus.specification import AccuracySlo, Slos
from circinus.specification.formatting import format_duration, format_latency_bound, format_score, format_usd_per_h
from circinus.specification.units import DURATION, PRICE_PER_H

_TRIED = 8
"""Configurations whose plans are looked at."""

_ALIKE = 2
"""Decimals within which probabilities count as equal, so that cost decides."""

_LEAST_ODDS = 0.01
"""A plan that keeps its objectives with a lower probability is none to speak of."""


def best_effort_plan(search: QuerySearch) -> BestEffortPlan | None:
    """The plan that most likely keeps all objectives, and of equally likely ones the cheapest.

    Configurations are looked at in the order of their probability to keep the accuracy objective (then by how fast
    they may be), as far as that alone may be better than what was found, and no more than a few. Of each this is the
    cheapest plan whose latency is promised, or else the fastest plan; the cost objective is always kept.

    Args:
        search: of a query without a promised plan.

    Returns:
        None where no plan is known that has a chance.
    """
    accuracy = np.round(search.accuracy_probability, _ALIKE)
    order = np.lexsort((search.violation, -accuracy))
    found: tuple[float, float] | None = None
    best: BestEffortPlan | None = None
    for configuration in order[:_TRIED].tolist():
        if accuracy[configuration] < _LEAST_ODDS or (found is not None and accuracy[configuration] < found[0]):
            break
        candidate = search.least(configuration, search.space.columns.alone_cost, cost=True)
        candidate = candidate or search.fastest(np.array([configuration]))
        if candidate is None or candidate.estimate.slo_probability is None:
            continue
        rank = round(candidate.estimate.slo_probability.joint, _ALIKE), -candidate.estimate.cost_usd_per_h.upper
        if rank[0] >= _LEAST_ODDS and (found is None or rank > found):
            found = rank
            items = len(search.arrays.configurations[configuration].items)
            best = BestEffortPlan(candidate, candidate.estimate.slo_probability.joint, items, search.arrays.population)
    return best


_LEAST = 1e-9


def near_misses(search: QuerySearch, without_cost: PlanArrays) -> tuple[NearMiss, ...]:
    """For the configurations nearest to having a plan, the best plan that misses exactly one objective.

    Of a configuration that misses the accuracy objective this is the cheapest plan that keeps the others, of one that
    is too slow everywhere the fastest plan, of one that costs too much the cheapest plan.

    Args:
        search: of the query.
        without_cost: the cheapest plans of all accurate configurations when there is no cost objective.

    Returns:
        At most as many as the settings say, nearest first: by the excess over the objective relative to it.
    """
    ranked = sorted(
        [*_inaccurate(search), *_slow(search), *_expensive(search, without_cost)],
        key=lambda miss: (miss[0], miss[2]),
    )
    found: list[NearMiss] = []
    for _, slo, configuration in ranked[: 2 * search.settings.near_misses]:
        if len(found) == search.settings.near_misses:
            break
        candidate = _best(search, slo, configuration)
        if candidate is not None and candidate.estimate.violations(search.query.slos) == (slo,):
            reason = describe_violations(candidate.estimate, search.query.slos)
            found.append(NearMiss(candidate, (slo,), reason))
    return tuple(found)


def _inaccurate(search: QuerySearch) -> list[tuple[float, SloName, int]]:
    slo = search.query.slos.accuracy
    if slo is None:
        return []
    scale = max(abs(slo.threshold), _LEAST)
    return [
        (float(search.shortfall[index]) / scale, "accuracy", int(index))
        for index in np.flatnonzero((search.shortfall > 0) & (search.violation <= 0))
    ]


def _slow(search: QuerySearch) -> list[tuple[float, SloName, int]]:
    too_slow = (search.shortfall <= 0) & (search.violation > 0) & np.isfinite(search.violation)
    return [(float(search.violation[index]), "latency", int(index)) for index in np.flatnonzero(too_slow)]


def _expensive(search: QuerySearch, without_cost: PlanArrays) -> list[tuple[float, SloName, int]]:
    slo = search.query.slos.cost
    if slo is None:
        return []
    plans, column = without_cost, search.space.columns.shared_cost
    found: list[tuple[float, SloName, int]] = []
    for configuration in np.unique(plans.configuration):
        least = plans.resources[plans.configuration == configuration, column].min()
        excess = float(least) / max(slo.limit_usd_per_h, _LEAST) - 1
        if excess > 0:
            found.append((excess, "cost", int(configuration)))
    return found


def _best(search: QuerySearch, slo: SloName, configuration: int) -> PlanCandidate | None:
    columns = search.space.columns
    if slo == "latency":
        return search.fastest(np.array([configuration]))
    if slo == "accuracy":
        return search.least(configuration, columns.alone_cost, cost=True)
    return search.least(configuration, columns.shared_cost, cost=False)


def describe_violations(estimate: Estimate, slos: Slos) -> str:
    """What `estimate` promises beside each objective of `slos` that it does not promise to meet."""
    parts = []
    for name in estimate.violations(slos):
        if name == "latency" and slos.latency is not None:
            found, wanted = estimate.latency_s, slos.latency.limit_s
            promised = f"{format_duration(found.value)} (at most {format_latency_bound(found.upper)})"
            parts.append(f"p{estimate.percentile:g} {promised} > {DURATION.format(wanted)}")
        if name == "accuracy" and slos.accuracy is not None:
            parts.append(_inaccuracy(estimate.accuracy, slos.accuracy))
        if name == "cost" and slos.cost is not None:
            cost, limit = estimate.cost_usd_per_h, PRICE_PER_H.format(slos.cost.limit_usd_per_h)
            parts.append(
                f"cost {format_usd_per_h(cost.upper)} alone ({format_usd_per_h(cost.lower)} fully shared) > {limit}"
            )
    return "; ".join(parts)


def _inaccuracy(found: Interval, slo: AccuracySlo) -> str:
    """That it misses the objective, or is not known well enough to promise it."""
    least = slo.comparison == ">="
    what = f"{'accuracy' if least else 'error'} {format_score(found.value)}"
    surely = f"{'at least' if least else 'at most'} {format_score(found.lower if least else found.upper)}"
    if slo.is_met_by(found.value):
        return f"{what} is surely only {surely} so far, not {slo}"
    return f"{what} ({surely}) {'<' if least else '>'} {slo.threshold:g}"
