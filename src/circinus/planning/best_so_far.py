"""The best plan known for a query none of whose plans is promised yet."""

from __future__ import annotations

import numpy as np

from circinus.planning.frontier import BestEffortPlan
from circinus.planning.query_search import QuerySearch

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
