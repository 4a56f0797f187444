"""Screening of configurations whose service time alone exceeds a latency SLO."""

from __future__ import annotations

import math

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.specification import LatencySlo, Pipeline
from circinus.statistics.counts import hypergeometric_critical_count

_MARGIN = 0.05
"""Relative excess of a time over its limit that counts as exceeding."""


def critical_path_s(pipeline: Pipeline, service_s: FloatArray) -> FloatArray:
    """Return (k, n) seconds from the input to the last output.

    Args:
        pipeline: pipeline of o operators.
        service_s: (k, o, n) service times, operators in the pipeline's order.
    """
    column = {operator.name: index for index, operator in enumerate(pipeline.operators)}
    finish: dict[str, FloatArray] = {}
    for operator in pipeline.topological_order():
        own = service_s[:, column[operator.name]]
        finish[operator.name] = own + np.max([finish[p] for p in operator.after], axis=0) if operator.after else own
    return np.asarray(np.max(list(finish.values()), axis=0))


def provably_too_slow(
    min_latency_s: FloatArray, population: int, latencies: tuple[LatencySlo | None, ...], risk: float
) -> BoolArray:
    """Return (k, q) whether a latency SLO is certainly missed.

    An SLO at the p-th percentile allows at most the share 1 - p/100 of the items to exceed the limit. Of n items drawn
    from N without replacement, the observed number or more exceed it with a hypergeometric probability; if that is at
    most the risk, the SLO is certainly missed. This is a single analysis at a sample size fixed in advance: peeking is
    not allowed. Percentiles far from the tails need more than a few items.

    The risk is that of drawing these items. Each was timed once: a machine that was busy throughout is not covered, so
    only times that exceed the limit by `_MARGIN` count.

    Args:
        min_latency_s: (k, n) lower bounds of the latency on n items drawn at random; NaN if some are missing, so that
            nothing is decided.
        population: N, the number of items they were drawn from.
        latencies: q SLOs; None is never missed.
        risk: risk of each statement.
    """
    items = min_latency_s.shape[1]
    too_slow = np.zeros((len(min_latency_s), len(latencies)), dtype=np.bool_)
    for column, latency in enumerate(latencies):
        if latency is not None and items:
            exceeding = (min_latency_s > latency.limit_s * (1.0 + _MARGIN)).sum(axis=1)
            # Rounded up, as an estimate may interpolate between the items next to the percentile.
            allowed = math.ceil(population * (1.0 - latency.percentile / 100.0))
            too_slow[:, column] = exceeding >= hypergeometric_critical_count(items, population, allowed, risk)
    too_slow[np.isnan(min_latency_s).any(axis=1)] = False
    return too_slow
