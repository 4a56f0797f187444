"""Fixed-size sampling with the guarantee that the profiler gives, as somebody would have to size it beforehand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.confidence_sequences import per_sequence_alpha


def sizes_with_known_margins(means: FloatArray, thresholds: FloatArray, population: int, risk: float) -> FloatArray:
    """(k,) items of each configuration until an interval of its size excludes every threshold in half of the runs.

    Hoeffding-Serfling intervals (Serfling, Annals of Statistics 2, 1974: without replacement), each side at the risk
    that the profiler's sequences have. Generous to fixed sampling in that the distances of the unknown
    means from the thresholds are given to it and half of the runs may end undecided; not in that the variance, which is
    less than the greatest possible, is not used (`sizes_by_normal_intervals`).

    Args:
        means: (k,) true mean scores in [0, 1].
        thresholds: (q,)
        population: number of items.
        risk: of the run.
    """
    margins = np.abs(means[:, None] - thresholds[None, :]).min(axis=1)
    sizes = np.arange(1, population + 1)
    log = math.log(1 / per_sequence_alpha(risk, len(means)))
    radii = np.sqrt((1 - (sizes - 1) / population) * log / (2 * sizes))
    found = np.array([np.argmax(radii <= margin) + 1 if (radii <= margin).any() else population for margin in margins])
    return found.astype(np.float64)


def sizes_by_normal_intervals(scores: FloatArray, thresholds: FloatArray, risk: float) -> FloatArray:
    """(k,) as `sizes_with_known_margins`, of normal intervals whose variances are given to them, too.

    Smaller than any interval with a guarantee: a normal one has none, but in the limit of many items.

    Args:
        scores: (k, N) of all items.
        thresholds: (q,)
        risk: of the run.
    """
    population = scores.shape[1]
    margins = np.abs(scores.mean(axis=1)[:, None] - thresholds[None, :]).min(axis=1)
    quantile = NormalDist().inv_cdf(1 - per_sequence_alpha(risk, len(scores)))
    needed = (quantile * scores.std(axis=1) / margins) ** 2
    return np.asarray(np.ceil(needed / (1 + needed / population)))
