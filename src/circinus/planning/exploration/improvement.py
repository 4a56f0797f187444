"""What measuring a configuration is expected to bring, for all queries at once: on arrays alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

LIKELY = 0.5
"""Probability from which a measured configuration counts as one that will do, though that is not sure yet."""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What is known and believed of k configurations and one query in s situations."""

    keeps: FloatArray
    """(k,) probability that a configuration keeps the accuracy objective."""
    sure: BoolArray
    """(k,) measured, and surely keeps it."""
    measured: BoolArray
    """(k,)"""
    usd_per_h: FloatArray
    """(k, s) no plan costs less; infinite: there is none."""
    sure_usd_per_h: FloatArray
    """(k, s) cost of the cheapest plan of the sure ones; infinite for the others."""


def incumbents(outlook: Outlook) -> FloatArray:
    """(s,) what the best plan so far costs; infinite: there is none.

    Of a configuration that surely keeps the objective, or was measured and likely does: its question is open, and
    whether something is worth more than it will be asked again when it is answered.
    """
    likely = outlook.measured & ~outlook.sure & (outlook.keeps >= LIKELY)
    costs = np.where(likely[:, None], outlook.usd_per_h, np.inf)
    costs = np.where(outlook.sure[:, None], outlook.sure_usd_per_h, costs)
    return np.asarray(costs.min(axis=0, initial=np.inf))


def savings(outlook: Outlook) -> FloatArray:
    """(k,) greatest share of the best plan's cost that a plan of each unmeasured configuration saves in any situation.

    1 where there is no plan yet; 0 for configurations without a plan, and for those measured.
    """
    best = incumbents(outlook)
    cost = outlook.usd_per_h
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(best > 0, 1.0 - cost / best, 0.0)
    shares = np.where(np.isinf(best), 1.0, shares)
    shares = np.where(np.isinf(cost) | outlook.measured[:, None], 0.0, np.maximum(shares, 0.0))
    return np.asarray(shares.max(axis=1, initial=0.0))


def chance(outlook: Outlook, least_saving: float) -> FloatArray:
    """(k,) probability that measuring a configuration makes the query's plan cheaper by more than a share."""
    return np.where(savings(outlook) > least_saving, outlook.keeps, 0.0)


def pointless(outlook: Outlook, least_saving: float) -> BoolArray:
    """(k,) whether no plan of a configuration is cheaper than the best sure one by more than a share, in any situation.

    A sure configuration is not pointless where its own plan is the best one (of equals the first). One without any
    plan always is.
    """
    best = np.asarray(outlook.sure_usd_per_h.min(axis=0, initial=np.inf))
    first = outlook.sure_usd_per_h.argmin(axis=0)
    with np.errstate(invalid="ignore"):
        cheaper = outlook.usd_per_h < (1.0 - least_saving) * best
    found: BoolArray = np.logical_not((cheaper & np.isfinite(outlook.usd_per_h)).any(axis=1, keepdims=True))[:, 0]
    found[first[np.isfinite(best)]] = False
    return found


def keeps(mean: FloatArray, deviation: FloatArray, threshold: float, *, at_least: bool) -> FloatArray:
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
