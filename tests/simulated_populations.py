"""Populations of scores of many shapes, and how often bounds of their mean are ever wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from circinus.statistics.interval import Interval

RISK = 0.1
RUNS = 300


def allowed(runs: int) -> float:
    """Misses above which a promise of RISK is broken with hardly a doubt (three standard deviations of a binomial)."""
    return float(RISK + 3 * np.sqrt(RISK * (1 - RISK) / runs))


ALLOWED = allowed(RUNS)


def _populations() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    stratum = np.arange(96) % 4
    return {
        "Bernoulli near 1": (rng.random(64) < 0.95).astype(float),
        "Bernoulli near 0": (rng.random(128) < 0.04).astype(float),
        "coin": (rng.random(64) < 0.5).astype(float),
        "bimodal": np.where(rng.random(80) < 0.7, 0.98, 0.1),
        "skewed": rng.beta(8, 0.6, 64),
        "narrow": np.clip(rng.normal(0.8, 0.02, 64), 0, 1),
        "one outlier": np.append(np.ones(99), 0.0),
        "correlated strata": np.clip(0.95 - 0.28 * stratum + rng.normal(0, 0.08, 96), 0, 1),
        "large": np.clip(rng.normal(0.3, 0.3, 512), 0, 1),
    }


POPULATIONS = _populations()


def random_orders(population: int, seed: int = 5, runs: int = RUNS) -> np.ndarray:
    """(runs, population) uniformly random permutations."""
    rng = np.random.default_rng(seed)
    return rng.permuted(np.tile(np.arange(population), (runs, 1)), axis=1)


def misses(bounds: Sequence[Interval], mean: float) -> tuple[float, float]:
    """Share of the bounds whose lower (upper) one is on the wrong side of the mean.

    Bounds of a sequence only tighten, so those after all items but one have all earlier failures in them.
    """
    below = np.mean([b.lower > mean + 1e-6 for b in bounds])
    above = np.mean([b.upper < mean - 1e-6 for b in bounds])
    return float(below), float(above)


def student_misses(scores: np.ndarray, mean: float, risk: float = RISK) -> float:
    """Share of the runs (rows) in which an ordinary two-sided interval at level 1 - 2 risk ever misses the mean."""
    normal_quantile = {0.1: 1.2816, 0.05: 1.6449}[risk]
    items = np.arange(1, scores.shape[1] + 1)
    means = np.cumsum(scores, axis=1) / items
    variances = np.maximum(np.cumsum(scores**2, axis=1) / items - means**2, 0)
    correction = 1 - items / (scores.shape[1] + 1)
    radii = normal_quantile * np.sqrt(variances * correction / np.maximum(items - 1, 1))
    wrong = np.abs(means - mean) > radii + 1e-9
    return float(wrong[:, 7:-8].any(axis=1).mean())
