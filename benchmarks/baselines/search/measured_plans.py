"""Selection among plans of measured configurations: arithmetic shared by all baselines."""

from __future__ import annotations

import numpy as np

from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import BoolArray, FloatArray, IntArray


def placeable(meter: Meter) -> IntArray:
    """Return indices of the configurations whose memory, which needs no measurement, fits on some tier."""
    return np.flatnonzero(meter.space.fits.any(axis=1))


def mean_scores(meter: Meter) -> FloatArray:
    """Return (k,) mean scores over the measured items of each configuration; NaN without items."""
    return np.array([meter.scores(k).mean() if meter.items[k] else np.nan for k in range(len(meter.items))])


def cheapest_usd_per_h(case: Case, meter: Meter) -> FloatArray:
    """Return (k,) minimum cost of a placement within latency and cost limits; infinite if there is none."""
    cost = meter.cost_usd_per_h
    return np.asarray(np.where(case.affordable(meter.latency_s, cost), cost, np.inf).min(axis=1))


def cheapest_plan(case: Case, meter: Meter, accurate: BoolArray) -> Answer | None:
    """Return the cheapest plan of measured configurations within latency and cost limits.

    Args:
        case: the query's SLOs.
        meter: measurements.
        accurate: (k,) configurations that are assumed to meet the threshold.
    """
    cost = meter.cost_usd_per_h
    feasible = case.affordable(meter.latency_s, cost) & (accurate & (meter.items > 0))[:, None]
    if not feasible.any():
        return None
    configuration, placement = np.unravel_index(np.where(feasible, cost, np.inf).argmin(), cost.shape)
    return Answer(int(configuration), int(placement))
