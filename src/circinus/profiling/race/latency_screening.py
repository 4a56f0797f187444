"""When the service alone takes too long, whatever the placement and the allocation."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.specification import LatencySlo, Pipeline

_MARGIN = 0.05
"""Share of a limit by which a time is to exceed it."""


def critical_path_s(pipeline: Pipeline, service_s: FloatArray) -> FloatArray:
    """(k, o, n) seconds of each operator, as the pipeline lists them -> (k, n) from the input to the last output."""
    column = {operator.name: number for number, operator in enumerate(pipeline.operators)}
    finish: dict[str, FloatArray] = {}
    for operator in pipeline.topological_order():
        own = service_s[:, column[operator.name]]
        finish[operator.name] = own + np.max([finish[p] for p in operator.after], axis=0) if operator.after else own
    return np.asarray(np.max(list(finish.values()), axis=0))


def provably_too_slow(
    least_latency_s: FloatArray, population: int, latencies: tuple[LatencySlo | None, ...], risk: float
) -> BoolArray:
    """(k, n) seconds that no plan undercuts on n items -> (k, q) whether a latency objective is surely missed.

    An objective at the p-th percentile allows at most the share 1 - p/100 of the items to take longer than the limit.
    Of n items drawn from N without replacement, as many or more exceed it as did here with a hypergeometric
    probability; where that is at most the risk, the objective is surely missed. One look, at a number of items that
    was fixed beforehand: peeking is not allowed for. Percentiles far from the tails take more than a few items.

    The risk is that of drawing these items. Each was timed once: a machine that was busy all the while is no part of
    it, so only what exceeds the limit by `_MARGIN` counts.

    Args:
        least_latency_s: on items drawn at random; NaN: not all are known, and nothing is said.
        population: N, how many items they were drawn from.
        latencies: q objectives; None is never missed.
        risk: of each statement.
    """
    items = least_latency_s.shape[1]
    found = np.zeros((len(least_latency_s), len(latencies)), dtype=np.bool_)
    for column, latency in enumerate(latencies):
        if latency is not None and items:
            exceeding = (least_latency_s > latency.limit_s * (1.0 + _MARGIN)).sum(axis=1)
            # Rounded up, as an estimate may interpolate between the items beside the percentile.
            allowed = math.ceil(population * (1.0 - latency.percentile / 100.0))
            found[:, column] = exceeding >= _fewest_unlikely(items, population, allowed, risk)
    found[np.isnan(least_latency_s).any(axis=1)] = False
    return found


def _fewest_unlikely(drawn: int, population: int, marked: int, risk: float) -> int:
    """The least count of marked items among those drawn that as many or more reach with at most the risk."""
    tail, ways = 0.0, math.comb(population, drawn)
    for count in range(drawn, -1, -1):
        tail += math.comb(marked, count) * math.comb(population - marked, drawn - count) / ways
        if tail > risk:
            return count + 1
    return 0
