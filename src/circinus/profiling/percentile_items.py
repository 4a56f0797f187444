"""How many items a percentile of latency takes to be known."""

from __future__ import annotations

import math

from circinus.spec import Query

LEAST_ITEMS = 32
"""Items that means of times and sizes stand on, whatever the objective."""


def items_for_percentile(percentile: float, risk: float) -> int:
    """The fewest items whose greatest value reaches a percentile of all with probability 1 - risk.

    No bound of the percentile from fewer items keeps the risk without assuming a shape: n values drawn at random are
    all below the p-th percentile with probability (p/100)^n (Wilks, Annals of Mathematical Statistics 12, 1941). For
    the 95th at a risk of 0.05 these are 59. Drawing without replacement needs no more.

    Args:
        percentile: of 100, between 0 and 100.
        risk: between 0 and 1.
    """
    return math.ceil(math.log(risk) / math.log(percentile / 100.0))


def latency_items(query: Query) -> int:
    """Items that a configuration must be measured on to promise the query's latency objective at its risk.

    Where a data set has fewer, all of them that may be profiled have to do.
    """
    latency = query.slos.latency
    return LEAST_ITEMS if latency is None else max(LEAST_ITEMS, items_for_percentile(latency.percentile, query.risk))
