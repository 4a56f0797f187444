"""Feasibility of configurations: certain ones, and the probability of meeting accuracy SLOs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from circinus.arrays import BoolArray, FloatArray
from circinus.planning.pool_eligibility import pin_mask
from circinus.planning.sampler.surrogate import Belief
from circinus.profiling import ConfigurationProfile
from circinus.profiling.race.slo_requirements import distribution_free_sample_size
from circinus.specification import AccuracySlo, Configuration, Query
from circinus.statistics.student_t import student_t_cdf


def feasibility_probability(mean: FloatArray, deviation: FloatArray, threshold: float, *, at_least: bool) -> FloatArray:
    """Return (k,) probabilities that mean scores satisfy a threshold.

    Student's distribution with five degrees of freedom is used, because deviations are estimated from few items and the
    normal tail at three standard deviations is four times too light.

    Args:
        mean: (k,) expected scores.
        deviation: (k,) standard deviations.
        threshold: threshold of the SLO.
        at_least: whether scores must be at least the threshold, rather than at most.
    """
    margin = (mean - threshold) if at_least else (threshold - mean)
    # Scaled to variance 1: that of the distribution is 5/3.
    return student_t_cdf(margin / np.maximum(deviation, 1e-12) * math.sqrt(5.0 / 3.0), 5)


def slo_feasibility(belief: Belief, slo: AccuracySlo | None) -> FloatArray:
    """Return (k,) probabilities that configurations meet an SLO; 1 without an SLO."""
    if slo is None:
        return np.ones(len(belief.mean))
    return feasibility_probability(belief.mean, belief.deviation, slo.threshold, at_least=slo.is_minimum)


def classify_feasibility(
    queries: Sequence[Query],
    configurations: Sequence[Configuration],
    measured: Mapping[Configuration, ConfigurationProfile],
    population: int,
) -> tuple[BoolArray, BoolArray]:
    """Return the decided part of the feasibility of k configurations for q queries.

    Returns:
        (k, q) whether the configuration certainly meets the accuracy SLO, and (k, q) whether it is excluded: it
        certainly misses the SLO, no more of its items can be measured, or the query is pinned to other knob values.
    """
    certain = np.zeros((len(configurations), len(queries)), dtype=bool)
    excluded = np.zeros_like(certain)
    for row, configuration in enumerate(configurations):
        if configuration not in measured:
            continue
        accuracy, is_final = measured[configuration].accuracy, len(measured[configuration].items) >= population
        for column, query in enumerate(queries):
            slo = query.slos.accuracy
            certain[row, column] = slo is None or slo.is_met_by(slo.worst(accuracy))
            excluded[row, column] = (
                slo is not None and (is_final or not slo.is_met_by(slo.best(accuracy))) and not certain[row, column]
            )
    for column, query in enumerate(queries):
        matching = pin_mask(query, configurations)
        certain[:, column] &= matching
        excluded[:, column] |= ~matching
    return certain, excluded


def few_items(
    queries: Sequence[Query],
    configurations: Sequence[Configuration],
    measured: Mapping[Configuration, ConfigurationProfile],
    population: int,
) -> BoolArray:
    """Return (k, q) measured configurations on fewer items than bound the latency percentile without an allowance.

    Args:
        queries: q queries.
        configurations: k configurations.
        measured: profiles of the measured configurations.
        population: number of items that may be measured.
    """
    items = np.array([len(measured[c].items) if c in measured else population for c in configurations])
    sufficient = np.array([min(distribution_free_sample_size(query), population) for query in queries])
    few: BoolArray = items[:, None] < sufficient
    return few


def awaiting_plan(certain_on_few: BoolArray, costs: Sequence[FloatArray]) -> BoolArray:
    """Return (k, q) certain configurations that have no plan on their few items but may have one on more.

    They wait until a plan appears, at most for the number of items that bounds the latency percentile without a
    small-sample allowance. Repeated checks of latencies until one passes would break the guarantee more often with each
    check.

    Args:
        certain_on_few: (k, q) whether the configuration certainly meets the accuracy SLO, on `few_items`.
        costs: for each query, (k, s) costs of the cheapest plans of certain configurations; infinite without a plan.
    """
    planless: BoolArray = ~np.array([np.isfinite(of_query).any(axis=1) for of_query in costs]).T
    return certain_on_few & planless
