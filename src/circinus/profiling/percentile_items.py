"""How many items a percentile of latency takes to be known."""

from __future__ import annotations

import math

from circinus.spec import Query

MIN_ITEMS = 8
"""Items that anything is promised on: means of times and sizes, and tails."""


def percentile_sample_size(percentile: float, risk: float) -> int:
    """The fewest items whose greatest value reaches a percentile of all with probability 1 - risk.

    No bound of the percentile from fewer items keeps the risk without assuming a shape: n values drawn at random are
    all below the p-th percentile with probability (p/100)^n (Wilks, Annals of Mathematical Statistics 12, 1941). For
    the 95th at a risk of 0.05 these are 59. Drawing without replacement needs no more.

    Args:
        percentile: of 100, between 0 and 100.
        risk: between 0 and 1.
    """
    return max(1, math.ceil(math.log(risk) / math.log(percentile / 100.0)))


def distribution_free_sample_size(query: Query) -> int:
    """Items on which the bound of the query's latency percentile needs no assumption of how long the slowest take; that
    of the waits rests on the mean of the items, however many."""
    latency = query.slos.latency
    return MIN_ITEMS if latency is None else max(MIN_ITEMS, percentile_sample_size(latency.percentile, query.risk))


def latency_sample_size(query: Query) -> int:
    """Items on which a configuration is measured for the query's latency objective.

    Half of what a bound of the percentile takes without assumptions. The allowance for the tail
    (`circinus.estimation.tails`) is then small, some per cent of the service time, unless times are of very different
    kinds.
    """
    return max(MIN_ITEMS, math.ceil(distribution_free_sample_size(query) / 2))
