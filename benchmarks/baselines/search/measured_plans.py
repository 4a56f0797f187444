"""Choosing among plans of configurations that were measured: arithmetic that all baselines are given."""

from __future__ import annotations

import numpy as np

from benchmarks.search.meter import Answer, Meter
from benchmarks.search.slo_cases import Case
from circinus.arrays import BoolArray, FloatArray, IntArray


def placeable(meter: Meter) -> IntArray:
    """Numbers of the configurations whose memory fits on some tier; that is known before anything is measured."""
    return np.flatnonzero(meter.space.fits.any(axis=1))


def mean_scores(meter: Meter) -> FloatArray:
    """(k,) over the items that were measured of each configuration; NaN without one."""
    return np.array([meter.scores(k).mean() if meter.items[k] else np.nan for k in range(len(meter.items))])


def cheapest_usd_per_h(case: Case, meter: Meter) -> FloatArray:
    """(k,) least cost of a placement that keeps latency and cost; infinite where there is none or nothing is known."""
    cost = meter.cost_usd_per_h
    return np.asarray(np.where(case.affordable(meter.latency_s, cost), cost, np.inf).min(axis=1))


def cheapest_plan(case: Case, meter: Meter, accurate: BoolArray) -> Answer | None:
    """The cheapest plan of measured configurations that keeps latency and cost.

    Args:
        case: asked.
        meter: knows what was measured.
        accurate: (k,) configurations that are believed to keep the threshold.
    """
    cost = meter.cost_usd_per_h
    believed = case.affordable(meter.latency_s, cost) & (accurate & (meter.items > 0))[:, None]
    if not believed.any():
        return None
    configuration, placement = np.unravel_index(np.where(believed, cost, np.inf).argmin(), cost.shape)
    return Answer(int(configuration), int(placement))
