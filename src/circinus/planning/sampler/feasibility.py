"""Which configurations surely keep accuracy objectives, and how probable it is of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.pool_eligibility import pin_mask
from circinus.planning.sampler.surrogate import Belief
from circinus.profiling import ConfigurationProfile, PipelineProfile
from circinus.profiling.race.slo_requirements import distribution_free_sample_size
from circinus.specification import AccuracySlo, Configuration, Query


def feasibility_probability(mean: FloatArray, deviation: FloatArray, threshold: float, *, at_least: bool) -> FloatArray:
    """(k,) beliefs of mean scores -> probability that a threshold is kept.

    By Student's distribution with five degrees of freedom: deviations are estimated from few items themselves, and to
    what is three of them away the normal distribution gives a quarter of the probability that it has.

    Args:
        mean: of each belief.
        deviation: standard deviation of each.
        threshold: of the objective.
        at_least: whether scores are to be at least the threshold; else at most.
    """
    margin = (mean - threshold) if at_least else (threshold - mean)
    # In units in which x / sqrt(5) is what the closed form is made of; the distribution has a variance of 5/3.
    x = np.asarray(margin / np.maximum(deviation, 1e-12) / math.sqrt(3.0), dtype=np.float64)
    share = 1.0 / (1.0 + x**2)
    return np.asarray(0.5 + (np.arctan(x) + x * share * (1.0 + 2.0 / 3.0 * share)) / math.pi)


def slo_feasibility(belief: Belief, slo: AccuracySlo | None) -> FloatArray:
    """(k,) probability that configurations keep an objective; None: there is none."""
    if slo is None:
        return np.ones(len(belief.mean))
    return feasibility_probability(belief.mean, belief.deviation, slo.threshold, at_least=slo.comparison == ">=")


def classify_feasibility(
    queries: Sequence[Query],
    listed: Sequence[Configuration],
    known: Mapping[Configuration, ConfigurationProfile],
    population: int,
) -> tuple[BoolArray, BoolArray]:
    """What is sure of k configurations and q queries.

    Args:
        queries: which.
        listed: the configurations.
        known: what was measured of some of them.
        population: items that may be measured.

    Returns:
        (k, q) which surely keep the accuracy objective, and (k, q) which are out: they surely miss it, nothing more can
        be measured of them, or the query is pinned to others.
    """
    sure = np.zeros((len(listed), len(queries)), dtype=bool)
    out = np.zeros_like(sure)
    for row, configuration in enumerate(listed):
        if configuration not in known:
            continue
        accuracy, whole = known[configuration].accuracy, len(known[configuration].items) >= population
        for column, query in enumerate(queries):
            slo = query.slos.accuracy
            worst, best = accuracy.lower, accuracy.upper
            if slo is not None and slo.comparison == "<=":
                worst, best = best, worst
            sure[row, column] = slo is None or slo.is_met_by(worst)
            out[row, column] = slo is not None and (whole or not slo.is_met_by(best)) and not sure[row, column]
    for column, query in enumerate(queries):
        kept = pin_mask(query, listed)
        sure[:, column] &= kept
        out[:, column] |= ~kept
    return sure, out


def awaiting_plan(
    queries: Sequence[Query],
    listed: Sequence[Configuration],
    known: Mapping[Configuration, ConfigurationProfile],
    sure: BoolArray,
    costs: Sequence[FloatArray],
    population: int,
) -> BoolArray:
    """(k, q) which configurations are surely accurate but have no plan on so few items, and may have one on more.

    They wait until a plan is found, at most for as many items as bound the percentile of latency without an allowance
    for the slowest: looking at latencies again and again until one look is good breaks the promise more often the more
    looks there are.

    Args:
        queries: which.
        listed: k configurations.
        known: what was measured of some of them.
        sure: (k, q) which surely keep the accuracy objective.
        costs: for each query (k, s) of the cheapest plans of those; infinite: there is none.
        population: items that may be measured.
    """
    found = sure.copy()
    for q, query in enumerate(queries):
        certain = min(distribution_free_sample_size(query), population)
        found[:, q] &= ~np.isfinite(costs[q]).any(axis=1)
        found[:, q] &= [c in known and len(known[c].items) < certain for c in listed]
    return found


def population_size(known: PipelineProfile) -> int:
    """Items that may be measured."""
    return known.dataset_items - known.held_out_items
