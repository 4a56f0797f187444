"""Fixed-size sampling with the guarantee of the profiler, sized in advance."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from circinus.arrays import FloatArray
from circinus.profiling.race.run_confidence import per_sequence_alpha


def sizes_with_known_margins(means: FloatArray, thresholds: FloatArray, population: int, risk: float) -> FloatArray:
    """Return (k,) items of each configuration until an interval excludes every threshold in half of the runs.

    Hoeffding-Serfling intervals (Serfling, Annals of Statistics 2, 1974: without replacement), each side at the risk of
    the profiler's sequences. The comparison favours fixed sampling, which is given the unknown distances of the means
    from the thresholds and may end undecided in half of the runs. It disfavours it by ignoring that the variance is
    below its maximum (see `sizes_by_normal_intervals`).

    Args:
        means: (k,) true mean scores in [0, 1].
        thresholds: (q,)
        population: number of items.
        risk: risk of the run.
    """
    margins = np.abs(means[:, None] - thresholds[None, :]).min(axis=1)
    sizes = np.arange(1, population + 1)
    log = math.log(1 / per_sequence_alpha(risk, len(means)))
    radii = np.sqrt((1 - (sizes - 1) / population) * log / (2 * sizes))
    items = np.array([np.argmax(radii <= margin) + 1 if (radii <= margin).any() else population for margin in margins])
    return items.astype(np.float64)


def sizes_by_normal_intervals(scores: FloatArray, thresholds: FloatArray, risk: float) -> FloatArray:
    """Return (k,) items as `sizes_with_known_margins`, for normal intervals that are given the variances, too.

    They are smaller than any interval with a guarantee, which a normal one has only in the limit of many items.

    Args:
        scores: (k, N) scores of all items.
        thresholds: (q,)
        risk: risk of the run.
    """
    population = scores.shape[1]
    margins = np.abs(scores.mean(axis=1)[:, None] - thresholds[None, :]).min(axis=1)
    quantile = NormalDist().inv_cdf(1 - per_sequence_alpha(risk, len(scores)))
    needed = (quantile * scores.std(axis=1) / margins) ** 2
    return np.asarray(np.ceil(needed / (1 + needed / population)))
